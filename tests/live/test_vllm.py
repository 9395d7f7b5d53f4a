"""Tests of Trident with a real Triton, which serves a fake vLLM model.

The model (vllm_contract/) has the tensors of Triton's stock vLLM backend.
"""

import base64
import json
import shutil
from pathlib import Path

import openai
import pytest
import requests
from google.protobuf import text_format
from openai import OpenAI
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.images import encode_image
from tests.support.live import export, metric, url, user, wait_until
from tests.support.stack import read_config, running_stack

CONTRACT = Path(__file__).with_name("vllm_contract")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.content is string %}{{ m.content }} {% else %}"
    "{% for part in m.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer{% endif %}"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    source = tmp_path_factory.mktemp("published") / "words"
    source.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(source / "tokenizer.json"))
    texts = {
        "config.json": {"max_position_embeddings": 200, "vision_config": {}},
        "tokenizer_config.json": {"chat_template": TEMPLATE, "bos_token": {"content": ""}},
    }
    for name, content in texts.items():
        (source / name).write_text(json.dumps(content), encoding="utf-8")
    repository = tmp_path_factory.mktemp("vllm")
    export(str(source), "--target", "vllm", "--output", str(repository))
    # Only the backend is another one: it and the kind of its instances need a GPU.
    shutil.copy(CONTRACT / "model.py", repository / "words" / "1")
    config = read_config(repository / "words")
    config.backend = "python"
    config.instance_group[0].kind = config.instance_group[0].KIND_CPU
    (repository / "words" / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    with running_stack(["words"], "--model-repository", str(repository)) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=30)


def ask(client, text, **options):
    return client.chat.completions.create(model="words", messages=user(text), **options)


def test_model_is_listed_and_healthy(client, stack):
    assert [model.id for model in client.models.list()] == ["words"]
    assert requests.get(url(stack, "/health"), timeout=10).status_code == 200


def test_non_streamed_response_has_text_and_usage(client):
    completion = ask(client, "one two three")
    assert completion.choices[0].message.content == "Answer three two one "
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 4)


def test_stream_sends_the_same_text_word_by_word(client):
    chunks = list(ask(client, "one two three", stream=True, stream_options={"include_usage": True}))
    deltas = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert deltas == ["Answer ", "three ", "two ", "one "]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (4, 4)


@pytest.mark.parametrize("stream", [False, True])
def test_output_length_is_limited_by_max_tokens_or_the_context(client, stream):
    def length(**options):
        completion = ask(client, "one two three", extra_body={"ignore_eos": True}, stream=stream, **options)
        if not stream:
            return completion.choices[0].finish_reason, completion.usage.completion_tokens
        choices = [chunk.choices[0] for chunk in completion]
        return choices[-1].finish_reason, sum(bool(choice.delta.content) for choice in choices)

    assert length(max_tokens=5) == ("length", 5)
    assert length() == ("length", 196)


def test_images_reach_the_model(client):
    pixels = base64.b64encode(encode_image(Image.new("RGB", (7, 5)), "PNG")).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixels}"}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "what"}, image]}]
    completion = client.chat.completions.create(model="words", messages=messages)
    assert completion.choices[0].message.content == "Answer <image:7x5> what <image:7x5> "


def test_stop_string_ends_the_text(client):
    completion = ask(client, "one two three", stop=["wo"], temperature=0.5, seed=3, extra_body={"top_k": 0})
    assert completion.choices[0].message.content == "Answer three t"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens == 3


def test_prompt_longer_than_the_context_is_rejected(client):
    with pytest.raises(openai.BadRequestError, match=r"200 tokens.*resulted in 301 tokens") as caught:
        ask(client, "word " * 300)
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize("stream", [False, True])
def test_engine_failure_is_reported(client, stream):
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "<fail>", stream=stream)
    assert caught.value.code == "engine_failure"


def test_text_completions_support_echo_and_streaming_but_not_token_ids(client):
    completion = client.completions.create(model="words", prompt=["a b", "c d e"], echo=True)
    assert [choice.text for choice in completion.choices] == ["a bb a ", "c d ee d c "]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 5)
    stream = client.completions.create(model="words", prompt="a b", echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "a bb a "
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="words", prompt=[[1], [2]])
    assert caught.value.param == "prompt[0]"


def test_responses_continue_a_conversation(client):
    first = client.responses.create(model="words", input="one two")
    assert first.output_text == "Answer two one "
    second = client.responses.create(model="words", input="three", previous_response_id=first.id, stream=True)
    *_, completed = second
    assert completed.response.output_text == "Answer three one two Answer two one "


@pytest.mark.parametrize("stream", [False, True])
def test_client_disconnect_stops_its_generation(client, stack, stream):
    wait_until(lambda: metric(stack, "running") == 0, 10, "an idle engine")
    options = {"model": "words", "messages": user("one two"), "ignore_eos": True, "stream": stream}
    with pytest.raises(requests.Timeout):
        with requests.post(url(stack, "/v1/chat/completions"), json=options, timeout=0.7, stream=True) as response:
            wait_until(lambda: metric(stack, "running") == 1, 3, "a running request")
            next(response.iter_lines())
            raise requests.Timeout
    wait_until(lambda: metric(stack, "running") == 0, 2.5, "the engine to stop the work of a disconnected client")
