"""Kokoro speaks English, Chinese and Japanese; Whisper transcribes the audio."""

import jiwer
import pytest
import requests

from tests.support.live import export, url
from tests.support.speech import SENTENCES, normalize_words, transcribe_text
from tests.support.stack import running_stack


@pytest.fixture(scope="module")
def kokoro(stack):
    export("kokoro-82m")
    with running_stack(["kokoro-82m"]) as settings:
        yield settings


class TestKokoro:
    def transcript(self, stack, kokoro, text, language, **body):
        response = requests.post(
            url(kokoro, "/v1/audio/speech"), json={"input": text, "voice": "alloy"} | body, timeout=120
        )
        assert response.status_code == 200, response.text
        return transcribe_text(stack, response.content, language=language)

    def test_english_is_intelligible(self, stack, kokoro):
        """The voice has a Japanese accent, so the test accepts a word error rate of up to 25%."""
        texts = [self.transcript(stack, kokoro, sentence, "en") for sentence in SENTENCES[:5]]
        assert jiwer.wer([normalize_words(s) for s in SENTENCES[:5]], [normalize_words(t) for t in texts]) <= 0.25

    def test_japanese_is_intelligible(self, stack, kokoro):
        text = self.transcript(stack, kokoro, "これはテストです。東京で会いましょう。", "ja")
        assert "テスト" in text
        assert "東京" in text

    def test_chinese_with_english_and_a_date_is_intelligible(self, stack, kokoro):
        """The voice has a Japanese accent, so it is enough if some of the words are recognized."""
        text = self.transcript(stack, kokoro, "你好，今天是2024年3月5日，Hello World。", "zh")
        assert "hello" in text.lower()
        assert any(word in text for word in ("2024", "二零二四", "3月", "三月", "今天", "你好")), text

    def test_every_voice_sounds_different(self, kokoro):
        voices = [voice["id"] for voice in requests.get(url(kokoro, "/v1/audio/voices"), timeout=10).json()["voices"]]
        assert voices == ["jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo"]
        body = {"input": "Hello.", "response_format": "pcm"}
        sounds = {
            requests.post(url(kokoro, "/v1/audio/speech"), json=body | {"voice": voice}, timeout=60).content
            for voice in voices
        }
        assert len(sounds) == 5
