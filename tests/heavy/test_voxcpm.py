"""VoxCPM with random weights, through the real exporter and Triton: voice cloning, streaming, clear errors."""

import base64
import io
import json
import wave
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from openai import BadRequestError, OpenAI

from contract.paths import latest_version
from export.environments import make
from tests.support.live import export_weights, run_in, url
from tests.support.own_models import export_folder
from tests.support.speech import clone, reference_audio_url, speak, wav
from tests.support.stack import running_stack

# The catalog's name → the variant of the tiny model.
VARIANTS = {"voxcpm-0.5b": "0.5", "voxcpm1.5": "1.5", "voxcpm2": "2"}

# The example in AHA's API document, with another address of the recording.
EXAMPLE = """{
"model": "OpenBMB/VoxCPM-0.5B1.5",
"messages": [
{
"role": "user",
"content": [
{"type": "text", "text": "你好,这是 AHA 在说话。"},
{"type": "audio", "audio_url": {"url": "RECORDING"}}
]
}
]
}"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voxcpm")
    make(".venv-voice/voxcpm")
    for name, variant in VARIANTS.items():
        run_in(".venv-voice", "tiny_voxcpm", folder / name, variant)
    return folder


@pytest.fixture(scope="module")
def repository(published):
    for name in VARIANTS:
        repository = export_weights(name, published / name)
    return repository


@pytest.fixture(scope="module")
def stack(repository):
    models = ["voxcpm1.5", "voxcpm2", "whisper-base"]
    with running_stack(models, "--model-repository", str(repository)) as settings:
        yield settings


def samples_of(content):
    with wave.open(io.BytesIO(content)) as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)


def audio_of(response):
    assert response.status_code == 200, response.text
    address = response.json()["choices"][0]["message"]["content"][0]["audio_url"]["url"]
    return samples_of(base64.b64decode(address.partition(",")[2]))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_speech_is_that_of_the_package(published, repository, name):
    exported = latest_version(repository / name)
    found = json.loads(run_in(".venv-voice", "voxcpm_reference", published / name, exported).splitlines()[-1])
    assert set(found) == {"none", "continued", *(["imitated"] if name == "voxcpm2" else [])}
    for number, difference in found.values():
        assert number > 4_000
        assert difference < 1e-4


def test_weights_are_no_pickles_after_the_export(repository):
    for name in VARIANTS:
        files = {path.name for path in latest_version(repository / name).iterdir()}
        assert not [file for file in files if file.endswith((".pth", ".bin"))]
        assert {"audiovae.safetensors", "default_voice.safetensors", "model.safetensors"} <= files


def test_the_example_of_the_api_document(stack):
    body = EXAMPLE.replace("RECORDING", reference_audio_url(0)).encode()
    headers = {"Content-Type": "application/json"}
    rate, samples = audio_of(requests.post(url(stack, "/audio/speech"), data=body, headers=headers, timeout=120))
    assert rate == 44_100
    assert len(samples) > rate // 4
    assert np.abs(samples).max() > 100


@pytest.mark.parametrize("name", ["voxcpm1.5", "voxcpm2"])
def test_each_reference_has_its_own_voice(stack, name):
    first, second, again = (
        audio_of(clone(stack, reference_audio_url(start), model=name))[1].tobytes() for start in (0, 10, 0)
    )
    assert first == again
    assert first != second


def test_the_text_of_the_reference_can_be_given(stack):
    given = [
        audio_of(clone(stack, reference_audio_url(0), model="voxcpm1.5", reference_text=text))[1].tobytes()
        for text in ("It was the best of times.", "Some other words altogether.")
    ]
    assert given[0] != given[1]


@pytest.mark.parametrize("name", ["voxcpm1.5", "voxcpm2"])
def test_speech_without_a_reference_has_the_default_voice(stack, name):
    voices = requests.get(url(stack, f"/v1/audio/voices?model={name}"), timeout=10).json()["voices"]
    assert [voice["id"] for voice in voices] == ["default"]
    contents = {speak(stack, model=name, voice=voice, input="Hello there.").content for voice in ("alloy", "default")}
    assert len(contents) == 1
    client = OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0)
    with pytest.raises(BadRequestError, match="available voices: default"):
        client.audio.speech.create(model=name, voice="nobody", input="Hello.")


def test_speech_is_sent_while_it_is_spoken(stack):
    body = {
        "model": "voxcpm2",
        "voice": "alloy",
        "input": "Pack my box with five dozen jugs.",
        "response_format": "pcm",
    }
    with requests.post(url(stack, "/v1/audio/speech"), json=body, stream=True, timeout=60) as response:
        chunks = [chunk for chunk in response.iter_content(None) if chunk]
    assert len(chunks) >= 3
    whole = samples_of(speak(stack, **body | {"response_format": "wav"}).content)[1]
    assert np.array_equal(np.frombuffer(b"".join(chunks), np.int16), whole)


def test_concurrent_requests_keep_their_voices_and_one_that_is_cancelled_frees_the_model(stack):
    expected = [audio_of(clone(stack, reference_audio_url(n), model="voxcpm2"))[1].tobytes() for n in range(3)]
    body = {"model": "voxcpm2", "voice": "alloy", "input": "Pack my box. " * 200, "response_format": "pcm"}
    with requests.post(url(stack, "/v1/audio/speech"), json=body, stream=True, timeout=60) as response:
        next(response.iter_content(None))
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda n: clone(stack, reference_audio_url(n % 3), model="voxcpm2"), range(9)))
    assert [audio_of(response)[1].tobytes() for response in responses] == expected * 3


def silence(seconds):
    return "data:audio/wav;base64," + base64.b64encode(wav(np.zeros(int(16_000 * seconds)))).decode()


def noise(seconds):
    samples = np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds))
    return "data:audio/wav;base64," + base64.b64encode(wav(samples)).decode()


@pytest.mark.parametrize("name", ["voxcpm1.5", "voxcpm2"])
@pytest.mark.parametrize("address", [silence(3), noise(3), silence(0.05), "base64://aGVsbG8="])
def test_a_reference_that_is_no_speech_is_rejected(stack, name, address):
    response = clone(stack, address, model=name)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_audio"), error
    assert error["param"] == "messages[0].content[1].audio_url.url"


def test_a_language_that_the_model_does_not_speak_is_rejected(stack):
    response = clone(stack, reference_audio_url(0), text="สวัสดี", model="voxcpm1.5")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_language")
    assert clone(stack, reference_audio_url(0), text="สวัสดี", model="voxcpm2").status_code == 200


def test_files_of_another_model_are_refused(published, tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    for path in (published / "voxcpm2").iterdir():
        (folder / path.name).symlink_to(path)
    output = export_folder("voxcpm1.5", tmp_path / "repository", "--weights", str(folder), code=1)
    assert "the files are those of the architecture voxcpm2" in output
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(published / "voxcpm1.5" / "model.safetensors")
    assert "2 weights are missing, for example fusion_concat_proj.bias" in export_folder(
        folder, tmp_path / "repository", code=1
    )
