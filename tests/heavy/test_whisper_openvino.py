"""Whisper on OpenVINO, with the starter's weights converted by the real converter."""

import itertools
import re

import jiwer
import numpy as np
import pytest

from tests.support.live import export
from tests.support.recordings import librivox
from tests.support.speech import CLIPS, TWO_CITIES, post, wav, words
from tests.support.stack import running_stack


@pytest.fixture(scope="module")
def openvino():
    """The other engine, with the same weights converted in the environment that has torch."""
    export("whisper-base-openvino")
    with running_stack(["whisper-base-openvino"]) as settings:
        yield settings


class TestOpenVINO:
    def test_words(self, openvino):
        clips = librivox()
        texts = [post(openvino, path.read_bytes()).json()["text"] for path in clips]
        assert jiwer.wer([words(text) for text in clips.values()], [words(text) for text in texts]) <= 0.10

    def test_times(self, openvino):
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        answer = post(openvino, TWO_CITIES.read_bytes(), **fields).json()
        assert answer["language"] == "en"
        for pieces in (answer["segments"], answer["words"]):
            for one, other in itertools.pairwise(pieces):
                assert 0 <= one["start"] <= one["end"] <= other["start"] + 0.01
        assert "".join(word["word"] for word in answer["words"]).strip() == answer["text"]

    def test_silence_and_bad_files(self, openvino):
        assert post(openvino, wav(np.zeros(5 * 16_000))).json()["text"] == ""
        assert post(openvino, b"junk").status_code == 400

    def test_languages_prompt_and_translation(self, openvino):
        (path,) = [path for path in CLIPS if path.parent.name == "es" and "pangrama" not in path.name][:1]
        assert post(openvino, path.read_bytes(), language="es", prompt="uno " * 300).status_code == 200
        text = post(openvino, path.read_bytes(), "/v1/audio/translations").json()["text"]
        assert {"one", "two", "three", "1", "2", "3"} & set(re.sub(r"\W", " ", text.lower()).split()), text
        assert post(openvino, path.read_bytes(), language="yue").status_code == 200
