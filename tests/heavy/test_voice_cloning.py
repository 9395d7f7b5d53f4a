"""Voice cloning by Pocket TTS with random weights, through the real exporter and Triton."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.support.live import export_weights, run_in, url
from tests.support.speech import clone, reference_audio_url
from tests.support.stack import running_stack


@pytest.fixture(scope="module")
def pocket_tts_stack(tmp_path_factory):
    """A Trident stack that serves a small Pocket TTS model with random weights, exported like the published model."""
    folder = tmp_path_factory.mktemp("pocket-tts")
    run_in(".venv-voice", "tiny_pocket_tts", folder / "w")
    repository = export_weights("pocket-tts", folder / "w")
    with running_stack(["pocket-tts"], "--model-repository", str(repository)) as settings:
        yield settings


class TestCloning:
    def test_each_reference_audio_has_its_own_voice(self, pocket_tts_stack):
        first, second, again = (
            clone(pocket_tts_stack, reference_audio_url(start), model="pocket-tts") for start in (0, 10, 0)
        )
        assert {first.status_code, second.status_code} == {200}
        audio = [response.json()["choices"][0]["message"]["content"] for response in (first, second, again)]
        assert audio[0] == audio[2]
        assert audio[0] != audio[1]

    def test_request_without_reference_audio_is_rejected(self, pocket_tts_stack):
        with pytest.raises(openai.BadRequestError, match="reference audio"):
            openai.OpenAI(base_url=url(pocket_tts_stack, "/v1"), api_key="x").audio.speech.create(
                model="pocket-tts", voice="alloy", input="Hello."
            )

    def test_error_for_invalid_reference_audio_names_the_field(self, pocket_tts_stack):
        error = clone(pocket_tts_stack, "base64://aGVsbG8=", model="pocket-tts").json()["error"]
        assert (error["param"], error["code"]) == ("messages[0].content[1].audio_url.url", "invalid_audio")

    def test_concurrent_requests_keep_their_voices(self, pocket_tts_stack):
        with ThreadPoolExecutor(6) as pool:
            responses = list(
                pool.map(lambda n: clone(pocket_tts_stack, reference_audio_url(n % 3), model="pocket-tts"), range(12))
            )
        assert {response.status_code for response in responses} == {200}
        sounds = [response.json()["choices"][0]["message"]["content"][0]["audio_url"]["url"] for response in responses]
        assert len(set(sounds)) == 3
