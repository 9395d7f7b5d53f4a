"""Kokoro speaks English, Chinese and Japanese; Whisper transcribes the audio."""

import jiwer
import numpy as np
import onnxruntime
import pytest
import requests

from tests.support.live import export, export_weights, url
from tests.support.speech import SENTENCES, normalize_words, transcribe_text
from tests.support.stack import running_stack
from tests.support.tiny_kokoro import VOICES, make_network, make_voice, vocabulary, write


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


# Language → a sentence, and its phonemes in Kokoro's alphabet.
PHONEMES = {
    "en-GB": ("The tomato was rather nice.", "ðə təmˈɑːtQ wɒz ɹˈɑːðə nˈIs."),
    "en-US": ("The tomato was rather nice.", "ðə təmˈATO wʌz ɹˈæðəɹ nˈIs."),
    "es": ("Buenos días, ¿cómo está usted?", "bwˈenos ðˈias, kˈomo estˈa ustˈed?"),
    "fr": ("Bonjour, comment allez-vous ?", "bɔ̃ʒˈuʁ, kɔmˌɑ̃ alˈevˈu ?"),
    "hi": ("नमस्ते, आप कैसे हैं?", "nəmˈʌsteː, ˌaːp kˈɛːseː hɛ̃?"),
    "it": ("Buongiorno, come sta?", "bʊonʤˈɔrno, kˌome stˈa?"),
    "pt-BR": ("Bom dia, como vai você?", "bˈoŋ ʤˈiæ, kˌomʊ vI vosˈe?"),
}


@pytest.fixture(scope="module")
def hub_kokoro(tmp_path_factory):
    """Serve a tiny network with random weights, in the layout of the hub, with voices of all languages."""
    folder = tmp_path_factory.mktemp("kokoro")
    write(folder / "w")
    (folder / "w" / "onnx" / "model.onnx").rename(folder / "w" / "onnx" / "model_quantized.onnx")
    repository = export_weights("kokoro-82m-v1.0", folder / "w")
    with running_stack(["kokoro-82m-v1.0"], "--model-repository", str(repository)) as settings:
        yield settings


class TestVoicesOfAllLanguages:
    @pytest.mark.parametrize("language", PHONEMES)
    def test_text_is_read_in_the_language_of_the_voice(self, hub_kokoro, language):
        from backends.speech.kokoro_g2p import KokoroG2P

        text, phonemes = PHONEMES[language]
        assert KokoroG2P(PHONEMES).for_text(text, language)(text) == phonemes

    def test_every_voice_is_listed_with_its_language(self, hub_kokoro):
        voices = requests.get(url(hub_kokoro, "/v1/audio/voices"), timeout=10).json()["voices"]
        assert {voice["id"]: voice["language"] for voice in voices}.items() >= {
            ("af_heart", "en-US"),
            ("bf_emma", "en-GB"),
            ("ef_dora", "es"),
            ("ff_siwis", "fr"),
            ("hm_omega", "hi"),
            ("if_sara", "it"),
            ("jf_alpha", "ja"),
            ("pm_alex", "pt-BR"),
            ("zf_xiaobei", "zh"),
        }
        assert len(voices) == len(VOICES)

    @pytest.mark.parametrize(("text", "voice"), [("你好，世界。", "zf_xiaobei"), ("こんにちは。", "jf_alpha")])
    def test_without_a_voice_of_the_model_the_text_gets_one_of_its_language(self, hub_kokoro, text, voice):
        sounds = [self.speak(hub_kokoro, text, voice=name) for name in (None, "alloy", voice, "af_heart")]
        assert sounds[0] == sounds[1] == sounds[2] != sounds[3]

    def test_the_network_computes_what_it_did_before_the_export(self, hub_kokoro):
        content = np.frombuffer(self.speak(hub_kokoro, "Buenos días.", voice="ef_dora"), np.int16)
        ids = [vocabulary()[symbol] for symbol in "bwˈenos ðˈias."]
        session = onnxruntime.InferenceSession(make_network().SerializeToString())
        style = make_voice(1 + VOICES.index("ef_dora"))[len(ids) - 1]
        inputs = {"input_ids": [[0, *ids, 0]], "style": style, "speed": np.ones(1, np.float32)}
        expected = session.run(None, inputs)[0].reshape(-1)
        assert len(content) == len(expected)
        assert np.abs(content / 32768 - expected).max() < 1e-3

    @staticmethod
    def speak(stack, text, **fields):
        body = {"input": text, "response_format": "pcm"} | {name: value for name, value in fields.items() if value}
        response = requests.post(url(stack, "/v1/audio/speech"), json=body, timeout=60)
        assert response.status_code == 200, response.text
        return response.content
