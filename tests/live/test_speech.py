"""Speech through the real Triton: formats, words (transcribed by Whisper), voices, AHA's API, invalid requests.

docs/compatibility.md describes AHA.
"""

import base64
import io
import json
import re
import time
import wave
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import requests

from tests.support.live import url
from tests.support.speech import SENTENCES, check_words, clone, reference_audio_url, speak, transcribe_text

FORMATS = ["mp3", "opus", "aac", "flac", "wav", "pcm"]

TEN_SENTENCES = " ".join(SENTENCES[:10])


def seconds(content, audio_format):
    if audio_format == "pcm":
        return len(content) / 48_000
    with av.open(io.BytesIO(content)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


class TestWords:
    def test_speech_has_the_words_of_the_input(self, stack):
        check_words(stack, SENTENCES[:5])

    def test_numbers_dates_and_money_are_spoken(self, stack):
        audio = speak(stack, input="On March 3rd, 2024, 1,250 people paid $9.99 at 7:30 pm.").content
        text = transcribe_text(stack, audio)
        assert all(word in text for word in ("March", "2024", "people")), text
        assert "9.99" in text or "99 cents" in text, text

    def test_same_text_yields_the_same_audio(self, stack):
        assert speak(stack, input="Hello there.").content == speak(stack, input="Hello there.").content


class TestTexts:
    """Whisper hears what is spoken; the words that it must have heard are in the text's spoken form."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("It costs 5€.", ["euro"]),
            ("We saw 1 000 000 people.", ["million|1,000,000|1000000"]),
            ("4 * 2 = 8", ["times|x|×|\\*"]),
            ("10 − 3 = 7", ["minus|-|−"]),
            ("Send it to jane.doe@example.com.", ["dot|\\."]),
            ("The pesticide dichlorodiphenyltrichloroethane was banned.", ["ethane|ethan|ethin", "ban"]),
        ],
    )
    def test_text_is_spoken_as_it_is_written(self, stack, text, words):
        heard = transcribe_text(stack, speak(stack, input=text).content).lower()
        assert all(re.search(word, heard) for word in words), heard

    @pytest.mark.parametrize("model", ["tts-1", "hibari", None])
    def test_chinese_is_spoken_by_a_model_that_can(self, stack, model):
        fields = {"model": model, "voice": "alloy", "input": "你好,这是一段测试语音。"}
        response = requests.post(url(stack, "/v1/audio/speech"), json=fields, timeout=120)
        assert response.status_code == 200
        form = {"language": "zh"}
        files = {"file": ("a.mp3", response.content)}
        body = requests.post(url(stack, "/v1/audio/transcriptions"), data=form, files=files, timeout=120).json()
        assert "你好" in body["text"], body
        assert set("测試试語语音") & set(body["text"]), body

    def test_language_that_no_model_speaks_is_rejected(self, stack):
        error = speak(stack, input="안녕하세요").json()["error"]
        assert (error["param"], error["code"]) == ("input", "unsupported_language")
        assert "English" in error["message"]


class TestFormats:
    def test_flac_has_its_length(self, stack):
        content = speak(stack, input="Hello there.", response_format="flac").content
        with av.open(io.BytesIO(content)) as container:
            assert container.streams.audio[0].duration
        assert int.from_bytes(content[18:26], "big") & ((1 << 36) - 1) > 10_000  # the number of samples

    @pytest.mark.parametrize("audio_format", FORMATS)
    def test_audio_decodes_to_the_same_length_in_every_format(self, stack, audio_format):
        expected = len(speak(stack, input=TEN_SENTENCES, response_format="pcm").content) / 48_000
        response = speak(stack, input=TEN_SENTENCES, response_format=audio_format)
        assert seconds(response.content, audio_format) == pytest.approx(expected, abs=0.1)
        assert 20 < expected < 60

    @pytest.mark.parametrize("speed", [0.25, 0.5, 2, 4])
    def test_speed_changes_the_length_but_not_the_pitch(self, stack, speed):
        def measure(content):
            samples = np.frombuffer(content, np.int16).astype(np.float32)
            # Estimates the pitch: the mean frequency, weighted by power, around the fundamental of this voice.
            spectrum = np.abs(np.fft.rfft(samples))[: int(350 * len(samples) / 24_000)]
            spectrum[: int(120 * len(samples) / 24_000)] = 0
            frequencies = np.arange(len(spectrum)) * 24_000 / len(samples)
            return len(samples), float((frequencies * spectrum**2).sum() / (spectrum**2).sum())

        text = " ".join(SENTENCES[:3])
        length, pitch = measure(speak(stack, input=text, response_format="pcm").content)
        other, other_pitch = measure(speak(stack, input=text, response_format="pcm", speed=speed).content)
        assert length / other == pytest.approx(speed, rel=0.15)
        assert other_pitch == pytest.approx(pitch, rel=0.15)

    def test_openai_client_streams_to_a_file(self, client, tmp_path):
        speech = client.audio.speech.with_streaming_response
        with speech.create(model="tts-1", voice="nova", input="Hello.") as response:
            response.stream_to_file(tmp_path / "a.mp3")
        assert seconds((tmp_path / "a.mp3").read_bytes(), "mp3") > 0.3

    def test_server_sent_events_carry_the_audio(self, stack):
        response = speak(stack, input="Hello there.", stream_format="sse", response_format="wav")
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
        content = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
        assert seconds(content, "wav") > 0.3
        assert events[-1]["type"] == "speech.audio.done"
        assert events[-1]["usage"]["total_tokens"] > 10

    def test_first_bytes_arrive_before_the_last_sentence_is_synthesized(self, stack):
        body = {"model": "hibari", "input": TEN_SENTENCES * 20, "response_format": "pcm"}
        started = time.monotonic()
        with requests.post(url(stack, "/v1/audio/speech"), json=body, stream=True, timeout=120) as response:
            blocks = response.iter_content(1 << 12)
            next(blocks)
            first = time.monotonic() - started
            assert sum(len(block) for block in blocks) > 1_000_000
        assert first < (time.monotonic() - started) / 5


class TestAHA:
    def test_aha_response_has_the_audio_as_a_data_url(self, stack):
        messages = [{"role": "user", "content": [{"type": "text", "text": "Hello there."}]}]
        body = speak(stack, "/audio/speech", messages=messages).json()
        (part,) = body["choices"][0]["message"]["content"]
        content = base64.b64decode(part["audio_url"]["url"].removeprefix("data:audio/wav;base64,"))
        with wave.open(io.BytesIO(content)) as file:
            assert (file.getframerate(), file.getnchannels()) == (24_000, 1)
            assert 0.5 < file.getnframes() / 24_000 < 3

    def test_model_without_voice_cloning_rejects_reference_audio(self, stack):
        error = clone(stack, reference_audio_url(0), model="hibari").json()["error"]
        assert error["code"] == "voice_cloning_unsupported"


class TestBadRequests:
    @pytest.mark.parametrize(
        ("body", "status", "param"),
        [
            ({"input": "Hello", "voice": "bob"}, 400, "voice"),
            ({"input": "..."}, 400, "input"),
            ({"input": "\U0001f642"}, 400, "input"),
            ({"input": "x" * 1_000_000}, 400, "input"),
            ({"input": "x" * 6_000_000}, 413, None),
            ({"input": "Hello", "speed": 9}, 400, "speed"),
        ],
    )
    def test_invalid_request_is_rejected_within_five_seconds(self, stack, body, status, param):
        started = time.monotonic()
        response = speak(stack, **body)
        assert (response.status_code, response.json()["error"]["param"]) == (status, param)
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(
        "text", ["1" * 3000, "A-b'c" * 600, "[x](/y/)", "\u202e\u0000\ufeff a", "a" * 5000, "é à ñ ß 漢字"]
    )
    def test_odd_text_is_spoken_or_rejected_and_the_next_request_succeeds(self, stack, text):
        assert speak(stack, input=text).status_code in (200, 400)
        assert speak(stack, input="Hello.").status_code == 200

    def test_invalid_requests_do_not_affect_other_requests(self, stack):
        expected = speak(stack, input="Hello there.").content

        def ask(number):
            if number % 2:
                return speak(stack, input="Hello", voice="bob").status_code == 400
            return speak(stack, input="Hello there.").content == expected

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(60)))


def test_short_text_is_spoken_quickly_during_a_long_request_and_after_its_client_disconnects(stack):
    body = {"model": "hibari", "input": TEN_SENTENCES * 150, "response_format": "opus"}
    with requests.post(url(stack, "/v1/audio/speech"), json=body, stream=True, timeout=120) as response:
        next(response.iter_content(1))
        started = time.monotonic()
        assert speak(stack, input="Hello there.").status_code == 200
        assert time.monotonic() - started < 3
    time.sleep(1.5)
    started = time.monotonic()
    assert speak(stack, input="Hello there.").status_code == 200
    assert time.monotonic() - started < 2


def test_voices_are_listed_with_their_aliases(stack):
    body = requests.get(url(stack, "/v1/audio/voices"), timeout=10).json()
    assert [voice["id"] for voice in body["voices"]][:2] == ["heart", "jf_alpha"]
    assert {"alloy", "echo", "fable", "onyx", "nova", "shimmer"} <= set(body["voices"][0]["aliases"])
