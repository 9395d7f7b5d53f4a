"""Images and audio with a GGUF file and a projector, which is computed so that a real model sees and hears."""

import base64
import io
import subprocess
import sys
import time
import wave
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.live.test_operation import descendants
from tests.support.gguf_files import gguf_file
from tests.support.hub import Hub, running_hub
from tests.support.live import MODEL, url, user
from tests.support.projectors import COLORS, write_color_projector
from tests.support.stack import running_stack

_RATE = 16_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    projector = write_color_projector(folder / "mmproj.gguf", with_audio=True)
    flags = ["--mmproj", str(projector), "--model-repository", str(folder / "repository")]
    with running_stack([str(gguf_file(MODEL))], *flags, engine="llamacpp") as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def image(color, size=(100, 80)):
    content = io.BytesIO()
    Image.new("RGB", size, COLORS.get(color, color)).save(content, "PNG")
    return image_part(content.getvalue())


def image_part(content):
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(content).decode()}"},
    }


def noise(lowest, highest, seconds=2):
    """Return an `input_audio` part with noise of these frequencies."""
    size = _RATE * seconds
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / _RATE)
    spectrum[(frequencies < lowest) | (frequencies > highest)] = 0
    samples = np.fft.irfft(spectrum, size)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((samples / np.abs(samples).max() * 20_000).astype("<i2").tobytes())
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content.getvalue()).decode()}}


def ask(client, *parts, **fields):
    messages = [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]
    return client.chat.completions.create(
        messages=messages, **{"model": MODEL, "temperature": 0, "max_tokens": 12} | fields
    )


def text_of(client, *parts, **fields):
    return ask(client, *parts, **fields).choices[0].message.content


def repeated_word(client, part, words=tuple(COLORS), **fields):
    """Return which of these words the model repeats if it is asked to repeat a picture or a sound.

    The rest of the answer is given, because it is almost as likely as other sentences.
    """
    regex = f'The word "({"|".join(words)})"'
    text = text_of(client, "Repeat this word: ", part, ".", extra_body={"guided_regex": regex}, **fields)
    return text.split('"')[1]


@pytest.mark.parametrize("color", COLORS)
def test_the_model_sees_the_color_of_a_picture(client, color):
    assert repeated_word(client, image(color)) == color


def test_the_model_hears_how_high_a_sound_is(client):
    for sound, word in ((noise(150, 1_200), "low"), (noise(4_500, 7_500), "high")):
        assert repeated_word(client, sound, ("low", "high")) == word


def test_several_files_keep_their_order(client):
    for first, last in (("red", "blue"), ("blue", "red")):
        parts = ["The first word is ", image(first), ", and the last word is ", image(last), ". Repeat the first word."]
        regex = "The first word is (red|blue)"
        assert text_of(client, *parts, extra_body={"guided_regex": regex}).endswith(first)
    assert text_of(client, image("green"), noise(150, 1_200), "What is this?")


def test_pictures_can_be_streamed_about(client):
    fields = {"extra_body": {"guided_regex": 'The word "(red|green|blue|white)"'}}
    stream = ask(client, "Repeat this word: ", image("blue"), ".", stream=True, **fields)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == 'The word "blue"'


def test_a_picture_of_an_earlier_request_is_cached(client):
    text = " ".join(f"Fact {i} about this picture." for i in range(20))
    usage = [ask(client, image("white"), text, "Why?", max_tokens=2).usage for _ in range(2)][1]
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1
    usage = ask(client, image("red"), text, "Why?", max_tokens=2).usage
    assert usage.prompt_tokens_details.cached_tokens < 40


def test_capabilities_are_listed(client):
    [model] = client.models.list().data
    assert {"vision", "audio"} <= set(model.capabilities)


def test_requests_with_pictures_run_beside_texts(client):
    with ThreadPoolExecutor(12) as pool:
        seen = [pool.submit(repeated_word, client, image(color)) for color in [*COLORS] * 2]
        read = [
            pool.submit(client.completions.create, model=MODEL, prompt="The capital of Japan is", temperature=0)
            for _ in range(4)
        ]
        assert [future.result() for future in seen] == [*COLORS] * 2
        assert all("Tokyo" in future.result().choices[0].text for future in read)


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        (image_part(b"no picture"), "image_url.url", "invalid_image"),
        (image("red", (3_000, 5)), "image_url.url", "invalid_image"),
        ({"type": "input_audio", "input_audio": {"data": "bm8gc291bmQ="}}, "", "invalid_audio"),
        ({"type": "input_audio", "input_audio": {"data": "%"}}, "input_audio.data", "invalid_base64"),
    ],
)
def test_an_invalid_file_is_named(client, part, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "What is this?", part)
    assert caught.value.param.startswith("messages[0].content[1]")
    assert caught.value.param.endswith(param)
    assert caught.value.code == code


def test_pictures_count_against_the_context(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, image("red"), "word " * 8_185)
    assert caught.value.code == "context_length_exceeded"


def media_process(stack):
    [found] = [process for process in descendants(stack, "media.process") if "-m" in process.cmdline()[:3]]
    return found


def test_a_crash_of_the_encoder_fails_only_its_request(client, stack):
    engine = [process.pid for process in descendants(stack, "llamacpp.process")]
    stream = client.chat.completions.create(model=MODEL, messages=user("Tell me a story."), max_tokens=200, stream=True)
    next(iter(stream))
    for attempt in range(1, 6):
        process = media_process(stack)
        process.suspend()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(ask, client, image(f"#12345{attempt}"), "What is this?")
            time.sleep(attempt)  # until the encoder has the image; if it does not have it yet, it is just restarted
            process.kill()
            if error := future.exception():
                break
    assert isinstance(error, openai.InternalServerError)
    assert "failed on the image" in str(error)
    assert list(stream)[-1].choices[0].finish_reason
    assert repeated_word(client, image("red", (90, 90))) == "red"
    assert engine == [process.pid for process in descendants(stack, "llamacpp.process")]
    assert media_process(stack).pid != process.pid


def test_a_wrong_projector_is_refused_before_anything_is_served():
    model = str(gguf_file(MODEL))
    command = [sys.executable, "-m", "trident", "serve", model, "--engine", "llamacpp"]
    for flags, message in (
        (["--mmproj", model], "not a projector, but a model of the architecture llama"),
        (["--mmproj", "missing.gguf"], "missing.gguf was not found"),
        (["bge-small-en-v1.5", "--mmproj", "x.gguf"], "requires exactly one MODEL"),
    ):
        result = subprocess.run([*command, *flags], capture_output=True, encoding="utf-8", timeout=60)
        assert result.returncode
        assert message in result.stderr + result.stdout


def test_a_model_on_a_hub_is_served_with_its_projector(tmp_path, monkeypatch):
    projector = write_color_projector(tmp_path / "mmproj.gguf").read_bytes()
    files = {"SmolLM2-Color-Q4_1.gguf": gguf_file(MODEL).read_bytes(), "mmproj-SmolLM2-Color-F16.gguf": projector}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with running_hub(Hub({"org/SmolLM2-Color-GGUF": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        flags = ["--model-repository", str(tmp_path / "repository")]
        for _ in range(2):
            # The second start works without the hub.
            with running_stack(["hf:org/SmolLM2-Color-GGUF"], *flags, engine="auto") as settings:
                client = OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=60)
                [model] = client.models.list().data
                assert model.id == "SmolLM2-Color-Q4_1"
                assert repeated_word(client, image("green"), model=model.id) == "green"
            hub.status = 503
        assert len(hub.downloads) == 2
