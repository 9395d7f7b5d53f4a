"""Whisper on OpenVINO, with the weights of the starter model, exported by the real exporter."""

import itertools
import re

import jiwer
import numpy as np
import pytest

from tests.support.live import export
from tests.support.recordings import librivox
from tests.support.speech import CLIPS, TWO_CITIES, normalize_words, post_audio, wav
from tests.support.stack import running_stack


@pytest.fixture(scope="module")
def openvino():
    """A Trident stack that transcribes with OpenVINO. The export converts the weights in an environment with torch."""
    export("whisper-base-openvino")
    with running_stack(["whisper-base-openvino"]) as settings:
        yield settings


class TestOpenVINO:
    def test_audiobook_is_transcribed(self, openvino):
        clips = librivox()
        texts = [post_audio(openvino, path.read_bytes()).json()["text"] for path in clips]
        assert (
            jiwer.wer([normalize_words(text) for text in clips.values()], [normalize_words(text) for text in texts])
            <= 0.10
        )

    def test_timestamps_are_in_order(self, openvino):
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        transcript = post_audio(openvino, TWO_CITIES.read_bytes(), **fields).json()
        assert transcript["language"] == "english"
        for entries in (transcript["segments"], transcript["words"]):
            for one, other in itertools.pairwise(entries):
                assert 0 <= one["start"] <= one["end"] <= other["start"] + 0.01
        assert " ".join(word["word"] for word in transcript["words"]) == transcript["text"]

    def test_silence_has_no_text_and_invalid_files_are_rejected(self, openvino):
        assert post_audio(openvino, wav(np.zeros(5 * 16_000))).json()["text"] == ""
        assert post_audio(openvino, b"junk").status_code == 400

    def test_language_prompt_and_translation_are_supported(self, openvino):
        (path,) = [path for path in CLIPS if path.parent.name == "es" and "pangrama" not in path.name][:1]
        assert post_audio(openvino, path.read_bytes(), language="es", prompt="uno " * 300).status_code == 200
        text = post_audio(openvino, path.read_bytes(), "/v1/audio/translations").json()["text"]
        assert {"one", "two", "three", "1", "2", "3"} & set(re.sub(r"\W", " ", text.lower()).split()), text
        assert post_audio(openvino, path.read_bytes(), language="yue").status_code == 200
