"""Pocket TTS, with random weights, speaks in the voice of a reference audio."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.support.live import export_own, run_in, url
from tests.support.speech import clone, reference
from tests.support.stack import running_stack


@pytest.fixture(scope="module")
def cloner(tmp_path_factory):
    """Pocket TTS with random weights of its architecture, in the layout in which the real ones are published."""
    folder = tmp_path_factory.mktemp("pocket-tts")
    run_in(".venv-voice", "tiny_pocket_tts", folder / "w")
    repository = export_own("pocket-tts", folder / "w")
    with running_stack(["pocket-tts"], "--model-repository", str(repository)) as settings:
        yield settings


class TestCloning:
    def test_two_voices_differ_and_one_stays_the_same(self, cloner):
        first, second, again = (clone(cloner, reference(start), model="pocket-tts") for start in (0, 10, 0))
        assert {first.status_code, second.status_code} == {200}
        audio = [answer.json()["choices"][0]["message"]["content"] for answer in (first, second, again)]
        assert audio[0] == audio[2]
        assert audio[0] != audio[1]

    def test_without_a_reference_it_has_no_voice(self, cloner):
        with pytest.raises(openai.BadRequestError, match="reference audio"):
            openai.OpenAI(base_url=url(cloner, "/v1"), api_key="x").audio.speech.create(
                model="pocket-tts", voice="alloy", input="Hello."
            )

    def test_what_is_not_audio_is_no_reference(self, cloner):
        error = clone(cloner, "base64://aGVsbG8=", model="pocket-tts").json()["error"]
        assert (error["param"], error["code"]) == ("messages[0].content[1].audio_url.url", "invalid_audio")

    def test_many_at_once(self, cloner):
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda n: clone(cloner, reference(n % 3), model="pocket-tts"), range(12)))
        assert {answer.status_code for answer in answers} == {200}
        sounds = [answer.json()["choices"][0]["message"]["content"][0]["audio_url"]["url"] for answer in answers]
        assert len(set(sounds)) == 3
