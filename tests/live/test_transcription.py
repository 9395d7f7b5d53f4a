"""Speech through the real Triton and Whisper: the words, the times, the languages, every format, bad files."""

import itertools
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import jiwer
import numpy as np
import pytest
import requests

from tests.support.recordings import librivox
from tests.support.speech import CLIPS, TWO_CITIES, long_speech, post, wav, words


def heard(client, path, **options):
    with path.open("rb") as file:
        return client.audio.transcriptions.create(model="whisper-base", file=file, **options)


class TestWords:
    def test_a_book_read_aloud(self, client):
        clips = librivox()
        rate = jiwer.wer([words(text) for text in clips.values()], [words(heard(client, path).text) for path in clips])
        assert rate <= 0.10

    def test_short_english_clips(self, client):
        clips = [path for path in CLIPS if path.parent.name == "en"]
        rate = jiwer.wer(
            [words(path.with_suffix(".txt").read_text(encoding="utf-8")) for path in clips],
            [words(heard(client, path).text) for path in clips],
        )
        assert rate <= 0.12

    def test_the_language_is_found(self, client):
        """Of most clips of at least eight of the nine languages."""
        found = {}
        for path in CLIPS:
            language = heard(client, path, response_format="verbose_json").language
            found.setdefault(path.parent.name, []).append(language == path.parent.name)
        assert len(found) == 9
        assert sum(sum(right) >= 2 for right in found.values()) >= 8

    def test_chinese_where_it_is_named(self, client):
        path = next(path for path in CLIPS if path.parent.name == "zh" and path.stem != "jishu")  # which is numbers
        assert re.search(r"[\u4e00-\u9fff]", heard(client, path, language="ZH").text)

    def test_a_translation_is_english(self, client):
        (path,) = [path for path in CLIPS if path.parent.name == "es" and "pangrama" not in path.name][:1]
        with path.open("rb") as file:
            text = client.audio.translations.create(model="whisper-1", file=file).text
        assert {"one", "two", "three", "1", "2", "3"} & set(re.sub(r"\W", " ", text.lower()).split()), text


class TestTimes:
    def test_segments_and_words_follow_each_other(self, client):
        options = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
        answer = heard(client, TWO_CITIES, **options)
        assert answer.duration == pytest.approx(44.37, abs=0.1)
        assert len(answer.segments) >= 5
        for pieces in (answer.segments, answer.words):
            for one, other in itertools.pairwise(pieces):
                assert 0 <= one.start <= one.end <= other.start + 0.01
            assert pieces[-1].end <= 44.5
        assert len(answer.words) > 100
        assert "".join(word.word for word in answer.words).strip() == answer.text

    def test_subtitles(self, stack):
        content = TWO_CITIES.read_bytes()
        srt = post(stack, content, response_format="srt")
        assert srt.text.startswith("1\n00:00:00,")
        vtt = post(stack, content, response_format="vtt")
        assert vtt.headers["Content-Type"] == "text/vtt; charset=utf-8"
        assert vtt.text.startswith("WEBVTT\n\n00:00:00.")

    def test_a_stream_has_the_same_text_and_begins_before_the_end(self, client):
        plain = heard(client, TWO_CITIES).text
        arrived, deltas = [], []
        for event in heard(client, TWO_CITIES, stream=True):
            arrived.append(time.monotonic())
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
        assert event.type == "transcript.text.done"
        assert event.text == "".join(deltas) == plain
        assert arrived[-1] - arrived[0] > 0.5


class TestNothingSaid:
    @pytest.mark.parametrize("kind", ["silence", "noise", "tone"])
    def test_no_words_are_invented(self, stack, kind):
        seconds = np.arange(8 * 16_000) / 16_000
        samples = {
            "silence": np.zeros_like(seconds),
            "noise": np.random.default_rng(1).normal(0, 0.05, seconds.shape),
            "tone": 0.3 * np.sin(seconds * 2 * np.pi * 440),
        }[kind]
        body = post(stack, wav(samples)).json()
        assert body == {"text": "", "usage": {"type": "duration", "seconds": 8}}


class TestBadFiles:
    @pytest.mark.parametrize("content", [b"just text, named .wav", b"\0" * 100_000, wav(np.zeros(0))])
    def test_what_is_not_audio_is_400(self, stack, content):
        response = post(stack, content)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, "file", "invalid_audio")

    def test_too_large_is_told_while_it_is_being_sent(self, stack):
        connection = socket.create_connection(("127.0.0.1", stack.port))
        boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Content-Length: 200000000\r\n\r\n".encode() + boundary + b"\0" * 1_000_000)
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")

    def test_nobody_else_notices(self, stack, client):
        clips = list(librivox())
        expected = [heard(client, path).text for path in clips]

        def ask(number):
            if number % 2:
                return post(stack, b"junk" * number * 1000).status_code == 400
            return heard(client, clips[number % 5]).text == expected[number % 5]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(20)))


class TestSharing:
    def test_a_long_file_does_not_hold_up_a_short_one(self, stack, client):
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(post, stack, long_speech(5))
            time.sleep(1)
            started = time.monotonic()
            assert heard(client, next(iter(librivox()))).text
            waited = time.monotonic() - started
            assert not long.done()
            assert waited < 15
            assert len(words(long.result().json()["text"]).split()) > 500

    def test_a_client_that_leaves_stops_its_work(self, stack, client):
        with pytest.raises(requests.Timeout):
            post(stack, long_speech(20), timeout=2)
        time.sleep(5)
        started = time.monotonic()
        heard(client, next(iter(librivox())))
        first = time.monotonic() - started
        started = time.monotonic()
        heard(client, next(iter(librivox())))
        assert first < 3 * (time.monotonic() - started) + 1


class TestTogether:
    def test_windows_decoded_together_give_the_same_words_and_times_that_follow(self, stack):
        """Alone on the machine the file's windows go together; the text is the one that is known."""
        fields = {"response_format": "verbose_json", "language": "en", "timestamp_granularities[]": "word"}
        answer = post(stack, long_speech(4), **fields).json()
        once = words(post(stack, TWO_CITIES.read_bytes()).json()["text"])
        assert jiwer.wer(" ".join([once] * 4), words(answer["text"])) <= 0.05
        for pieces in (answer["segments"], answer["words"]):
            for one, other in itertools.pairwise(pieces):
                assert one["start"] <= one["end"] <= other["start"] + 0.02
        assert len(answer["segments"]) >= 12
