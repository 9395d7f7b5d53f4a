"""Speech through the real Triton: every format, the words (heard again by Whisper), voices, cloning, bad requests."""

import base64
import io
import json
import time
import wave
from concurrent.futures import ThreadPoolExecutor

import av
import jiwer
import numpy as np
import openai
import pytest
import requests

from bench.recordings import MOONSHINE, package_files
from bench.stack import running_stack
from tests.live.conftest import export, export_own, run_in, url
from tests.live.test_transcription import words

FORMATS = ["mp3", "opus", "aac", "flac", "wav", "pcm"]

SENTENCES = """The old lighthouse stood at the edge of the cliff.
She opened the letter and began to read it slowly.
A cold wind was blowing from the north all day.
The children played in the garden until it was dark.
He bought a loaf of bread and some cheese at the market.
Nobody knew where the old man had come from.
The train to London leaves at seven in the morning.
It takes a long time to learn how to play the piano.
There was a large map of the world on the wall.
The doctor told him to drink more water and to sleep longer.
We walked along the river and talked about the future.
The museum is closed on Mondays but open every other day.
Please leave your shoes at the door before you come in.
The computer on the desk was older than the office itself.
My brother works in a hospital on the other side of town.
The soup was too hot to eat so we waited for a while.
In the summer the days are long and the nights are short.
The book that you gave me last week was very interesting.
A small bird sat on the branch and sang a beautiful song.
They decided to sell the house and move to the country.""".splitlines()

TEN_SENTENCES = " ".join(SENTENCES[:10])


def speak(stack, path="/v1/audio/speech", **body):
    return requests.post(url(stack, path), json={"model": "hibari", "voice": "alloy"} | body, timeout=120)


def seconds(content, form):
    if form == "pcm":
        return len(content) / 48_000
    with av.open(io.BytesIO(content)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def heard(stack, content, **fields):
    fields = {"model": "whisper-base"} | fields
    response = requests.post(url(stack, "/v1/audio/transcriptions"), files={"file": content}, data=fields, timeout=120)
    return response.json()["text"]


class TestWords:
    def test_what_is_said_is_heard(self, stack):
        texts = [heard(stack, speak(stack, input=sentence).content) for sentence in SENTENCES]
        assert jiwer.wer([words(s) for s in SENTENCES], [words(t) for t in texts]) <= 0.05

    def test_numbers_dates_and_money_are_read(self, stack):
        said = speak(stack, input="On March 3rd, 2024, 1,250 people paid $9.99 at 7:30 pm.").content
        text = heard(stack, said)
        assert all(word in text for word in ("March", "2024", "people")), text
        assert "9.99" in text or "99 cents" in text, text

    def test_the_same_text_sounds_the_same(self, stack):
        assert speak(stack, input="Hello there.").content == speak(stack, input="Hello there.").content


class TestFormats:
    @pytest.mark.parametrize("form", FORMATS)
    def test_decodes_to_the_right_length(self, stack, form):
        expected = len(speak(stack, input=TEN_SENTENCES, response_format="pcm").content) / 48_000
        response = speak(stack, input=TEN_SENTENCES, response_format=form)
        assert seconds(response.content, form) == pytest.approx(expected, abs=0.1)
        assert 20 < expected < 60

    @pytest.mark.parametrize("speed", [0.25, 0.5, 2, 4])
    def test_speed_changes_the_length_and_not_the_pitch(self, stack, speed):
        def measure(content):
            samples = np.frombuffer(content, np.int16).astype(np.float32)
            # The fundamental of this voice: the strongest below 350 Hz.
            spectrum = np.abs(np.fft.rfft(samples))[: int(350 * len(samples) / 24_000)]
            spectrum[: int(120 * len(samples) / 24_000)] = 0
            frequencies = np.arange(len(spectrum)) * 24_000 / len(samples)
            return len(samples), float((frequencies * spectrum**2).sum() / (spectrum**2).sum())

        text = " ".join(SENTENCES[:3])
        length, pitch = measure(speak(stack, input=text, response_format="pcm").content)
        other, other_pitch = measure(speak(stack, input=text, response_format="pcm", speed=speed).content)
        assert length / other == pytest.approx(speed, rel=0.15)
        assert other_pitch == pytest.approx(pitch, rel=0.15)

    def test_the_openai_client_streams_it_to_a_file(self, client, tmp_path):
        speech = client.audio.speech.with_streaming_response
        with speech.create(model="tts-1", voice="nova", input="Hello.") as response:
            response.stream_to_file(tmp_path / "a.mp3")
        assert seconds((tmp_path / "a.mp3").read_bytes(), "mp3") > 0.3

    def test_events(self, stack):
        response = speak(stack, input="Hello there.", stream_format="sse", response_format="wav")
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
        content = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
        assert seconds(content, "wav") > 0.3
        assert events[-1]["type"] == "speech.audio.done"
        assert events[-1]["usage"]["total_tokens"] > 10

    def test_the_first_bytes_come_before_the_last_sentence_is_made(self, stack):
        body = {"model": "hibari", "input": TEN_SENTENCES * 20, "response_format": "pcm"}
        started = time.monotonic()
        with requests.post(url(stack, "/v1/audio/speech"), json=body, stream=True, timeout=120) as response:
            blocks = response.iter_content(1 << 12)
            next(blocks)
            first = time.monotonic() - started
            assert sum(len(block) for block in blocks) > 1_000_000
        assert first < (time.monotonic() - started) / 5


class TestAHA:
    def test_its_shape(self, stack):
        messages = [{"role": "user", "content": [{"type": "text", "text": "Hello there."}]}]
        body = speak(stack, "/audio/speech", messages=messages).json()
        (part,) = body["choices"][0]["message"]["content"]
        content = base64.b64decode(part["audio_url"]["url"].removeprefix("data:audio/wav;base64,"))
        with wave.open(io.BytesIO(content)) as file:
            assert (file.getframerate(), file.getnchannels()) == (24_000, 1)
            assert 0.5 < file.getnframes() / 24_000 < 3

    def test_a_model_that_cannot_clone_says_so(self, stack):
        error = clone(stack, reference(0), model="hibari").json()["error"]
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
    def test_are_told_at_once(self, stack, body, status, param):
        started = time.monotonic()
        response = speak(stack, **body)
        assert (response.status_code, response.json()["error"]["param"]) == (status, param)
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(
        "text", ["1" * 3000, "A-b'c" * 600, "[x](/y/)", "\u202e\u0000\ufeff a", "a" * 5000, "é à ñ ß 漢字"]
    )
    def test_odd_texts_are_spoken_or_refused_and_nothing_breaks(self, stack, text):
        assert speak(stack, input=text).status_code in (200, 400)
        assert speak(stack, input="Hello.").status_code == 200

    def test_nobody_else_notices(self, stack):
        expected = speak(stack, input="Hello there.").content

        def ask(number):
            if number % 2:
                return speak(stack, input="Hello", voice="bob").status_code == 400
            return speak(stack, input="Hello there.").content == expected

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(60)))


def test_a_long_text_does_not_hold_up_a_short_one_and_one_who_leaves_stops_it(stack):
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


def test_voices(stack):
    body = requests.get(url(stack, "/v1/audio/voices"), timeout=10).json()
    assert [voice["id"] for voice in body["voices"]] == ["heart"]
    assert {"alloy", "echo", "fable", "onyx", "nova", "shimmer"} <= set(body["voices"][0]["aliases"])


@pytest.fixture(scope="module")
def kokoro(stack):
    export("kokoro-82m")
    with running_stack(["kokoro-82m"]) as settings:
        yield settings


class TestKokoro:
    def said(self, stack, kokoro, text, language, **body):
        response = requests.post(
            url(kokoro, "/v1/audio/speech"), json={"input": text, "voice": "alloy"} | body, timeout=120
        )
        assert response.status_code == 200, response.text
        return heard(stack, response.content, language=language)

    def test_english(self, stack, kokoro):
        """With the accent of a Japanese voice."""
        texts = [self.said(stack, kokoro, sentence, "en") for sentence in SENTENCES[:5]]
        assert jiwer.wer([words(s) for s in SENTENCES[:5]], [words(t) for t in texts]) <= 0.25

    def test_japanese(self, stack, kokoro):
        text = self.said(stack, kokoro, "これはテストです。東京で会いましょう。", "ja")
        assert "テスト" in text
        assert "東京" in text

    def test_chinese_with_english_and_a_date_in_it(self, stack, kokoro):
        """A Japanese voice has an accent in Chinese: of the words some are enough."""
        text = self.said(stack, kokoro, "你好，今天是2024年3月5日，Hello World。", "zh")
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


def reference(start):
    """Five seconds of somebody reading, as a data: URL."""
    content = io.BytesIO()
    with wave.open(str(package_files(MOONSHINE) / "two_cities.wav")) as file, wave.open(content, "wb") as part:
        part.setparams(file.getparams())
        file.setpos(start * file.getframerate())
        part.writeframes(file.readframes(5 * file.getframerate()))
    return f"data:audio/wav;base64,{base64.b64encode(content.getvalue()).decode()}"


def clone(stack, address, text="Hello there. How are you?", **body):
    parts = [{"type": "text", "text": text}, {"type": "audio", "audio_url": {"url": address}}]
    return speak(stack, "/audio/speech", messages=[{"role": "user", "content": parts}], **{"voice": None} | body)


@pytest.fixture(scope="module")
def cloner(tmp_path_factory):
    """Pocket TTS with random weights of its architecture, in the layout in which the real ones are published."""
    folder = tmp_path_factory.mktemp("pocket-tts")
    run_in(".venv-voice", "tiny_pocket_tts", folder / "w")
    cache = export_own("pocket-tts", folder / "w")
    with running_stack(["pocket-tts"], "--cache", str(cache)) as settings:
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
