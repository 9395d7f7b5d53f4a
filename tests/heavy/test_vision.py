"""Images in chats with small vision models of real architectures, through the real exporter and Triton.

The models have random weights, so only differences between their outputs are meaningful.
"""

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests
from PIL import Image

from contract.paths import default_model_repository, latest_version
from tests.support.images import encode_image, load_photograph
from tests.support.live import MODEL, export_weights, run_in, url, user
from tests.support.stack import running_stack

KINDS = {"qwen2.5-vl-3b": "qwen2_5_vl", "qwen3-vl-2b": "qwen3_vl"}


@pytest.fixture(scope="module", params=KINDS)
def vision_stack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    tokenizer = latest_version(default_model_repository() / MODEL) / "tokenizer.json"
    run_in(".venv-openvino", "tiny_vision_language", tokenizer, folder / "w", KINDS[request.param])
    repository = export_weights(request.param, folder / "w")
    with running_stack(
        [request.param], "--model-repository", str(repository), "--unknown-model", "default"
    ) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(vision_stack):
    return openai.OpenAI(base_url=url(vision_stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def part(content):
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(content).decode()}"}}


def text(value):
    return {"type": "text", "text": value}


def photo(name, *size):
    return encode_image(load_photograph(name).resize(size or (160, 120)), "PNG")


def ask(client, *parts, **fields):
    fields = {"model": "Qwen/Qwen3-VL-2B-Instruct", "max_tokens": 12, "temperature": 0} | fields
    return client.chat.completions.create(messages=[{"role": "user", "content": list(parts)}], **fields)


def text_of(completion):
    return completion.choices[0].message.content


CAT, ASTRONAUT, COFFEE = (photo(name) for name in ("chelsea", "astronaut", "coffee"))
QUESTION = text("这张图片里有什么?")


def test_response_depends_on_the_image(client):
    responses = [text_of(ask(client, QUESTION, part(image))) for image in (CAT, ASTRONAUT, COFFEE, CAT)]
    assert len(set(responses)) == 3
    assert responses[0] == responses[3]


def test_image_tokens_are_counted(client):
    none, one, two = (ask(client, QUESTION, *[part(CAT)] * count).usage.prompt_tokens for count in range(3))
    assert one - none > 10
    assert two - one == one - none
    large = ask(client, QUESTION, part(photo("chelsea", 1600, 1200))).usage.prompt_tokens
    assert one < large < none + 80


def test_response_depends_on_the_order_of_images_and_on_images_in_later_messages(client):
    parts = [part(CAT), part(ASTRONAUT)]
    assert text_of(ask(client, *parts, QUESTION)) != text_of(ask(client, *reversed(parts), QUESTION))
    messages = [
        {"role": "user", "content": [parts[0], QUESTION]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [text("And this?"), parts[1]]},
    ]
    fields = {"model": "x", "max_tokens": 12, "temperature": 0}
    one = client.chat.completions.create(messages=messages, **fields)
    other = client.chat.completions.create(messages=[*messages[:2], {"role": "user", "content": "And this?"}], **fields)
    assert text_of(one) != text_of(other)


def test_text_without_images_gets_a_response(client):
    completion = client.chat.completions.create(model="x", messages=user("Hello!"), max_tokens=5, temperature=0)
    assert completion.usage.completion_tokens == 5
    assert completion.choices[0].finish_reason == "length"


def test_stream_matches_non_streamed_response(client):
    stream = ask(client, QUESTION, part(CAT), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = ask(client, QUESTION, part(CAT))
    assert streamed == text_of(whole)
    assert chunks[-1].usage == whole.usage


def test_aha_example_is_streamed(vision_stack):
    """The request follows an example in AHA's documentation (docs/compatibility.md describes AHA)."""
    image = {"type": "image", "image_url": {"url": f"base64://{base64.b64encode(CAT).decode()}"}}
    body = {"model": "Qwen/Qwen3-VL-2B-Instruct", "messages": [{"role": "user", "content": [QUESTION, image]}]}
    response = requests.post(url(vision_stack, "/chat/completions"), json=body | {"max_tokens": 8}, timeout=60)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 30), (4000, 3000)])
def test_extreme_image_size_is_accepted(client, size):
    assert ask(client, QUESTION, part(photo("astronaut", *size))).usage.prompt_tokens > 4


@pytest.mark.parametrize(
    "placeholder", ["<ov_genai_image_0>", "<|image_pad|>", "<|vision_start|>", "<ov_genai_video_3>"]
)
def test_image_placeholder_in_text_is_treated_as_plain_text(client, placeholder):
    plain = ask(client, QUESTION, part(CAT)).usage.prompt_tokens
    for parts in ((text(placeholder),), (text(placeholder), part(CAT))):
        usage = ask(client, *parts).usage
        assert usage.prompt_tokens < plain + 20


def test_error_names_the_invalid_image_and_too_many_images_are_rejected(client):
    bomb = encode_image(Image.new("1", (40_000, 40_000)), "PNG")
    for content in (b"text", CAT[:300], bomb):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, QUESTION, part(CAT), part(content))
        assert caught.value.param == "messages[0].content[2].image_url.url"
    with pytest.raises(openai.BadRequestError, match=r"Too many images \(limit 16\)"):
        ask(client, *[part(CAT)] * 30)


def test_concurrent_images_and_texts_yield_the_same_responses(client):
    """Up to four of the 40 responses may differ from the expected ones.

    With random weights, rounding differences in a shared batch may change a response.
    """
    images = (CAT, ASTRONAUT, COFFEE)
    expected = [text_of(ask(client, QUESTION, part(image))) for image in images]

    def one(number):
        if number % 4 == 3:
            return bool(text_of(ask(client, text(f"Number {number}"))))
        return text_of(ask(client, QUESTION, part(images[number % 4]))) == expected[number % 4]

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(one, range(40)))
    assert sum(responses) >= 36


def test_client_disconnects_do_not_delay_later_requests(vision_stack, client):
    body = {"model": "x", "max_tokens": 3000, "messages": [{"role": "user", "content": [QUESTION, part(CAT)]}]}
    for _ in range(5):
        with pytest.raises(requests.Timeout):
            requests.post(url(vision_stack, "/v1/chat/completions"), json=body | {"ignore_eos": True}, timeout=0.5)
    started = time.monotonic()
    assert text_of(ask(client, QUESTION, part(CAT)))
    assert time.monotonic() - started < 10
