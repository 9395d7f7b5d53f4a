"""Tests transcription through the real Triton and Whisper.

The tests cover words, timestamps, languages, formats, silence and invalid files.
"""

import itertools
import re
import socket
import time
import wave

import jiwer
import numpy as np
import pytest
import requests

from tests.support.clips import first_seconds
from tests.support.recordings import librivox
from tests.support.speech import (
    CLIPS,
    TWO_CITIES,
    check_bad_files_among_good_ones,
    normalize_words,
    post_audio,
    repeat_recording,
    transcribe,
    wav,
)


class TestWords:
    def test_audiobook_is_transcribed(self, client):
        clips = librivox()
        rate = jiwer.wer(
            [normalize_words(text) for text in clips.values()],
            [normalize_words(transcribe(client, path).text) for path in clips],
        )
        assert rate <= 0.10

    def test_short_english_clips_are_transcribed(self, client):
        clips = [path for path in CLIPS if path.parent.name == "en"]
        rate = jiwer.wer(
            [normalize_words(path.with_suffix(".txt").read_text(encoding="utf-8")) for path in clips],
            [normalize_words(transcribe(client, path).text) for path in clips],
        )
        assert rate <= 0.12

    def test_language_is_detected(self, client):
        """Checks one easy clip in each of three languages; tests/heavy/test_speech_quality.py covers all clips."""
        for language, name in (("en", "english"), ("es", "spanish"), ("zh", "chinese")):
            path = next(path for path in CLIPS if path.parent.name == language)
            assert transcribe(client, path, response_format="verbose_json").language == name

    def test_chinese_is_transcribed_if_the_language_is_specified(self, client):
        # Skip the clip `jishu`, whose speaker counts to ten: Whisper may transcribe numbers as digits.
        path = next(path for path in CLIPS if path.parent.name == "zh" and path.stem != "jishu")
        assert re.search(r"[\u4e00-\u9fff]", transcribe(client, path, language="ZH").text)

    def test_translation_has_a_number_from_the_clip(self, client):
        (path,) = [path for path in CLIPS if path.parent.name == "es" and "pangrama" not in path.name][:1]
        with path.open("rb") as file:
            text = client.audio.translations.create(model="whisper-1", file=file).text
        assert {"one", "two", "three", "1", "2", "3"} & set(re.sub(r"\W", " ", text.lower()).split()), text


class TestTimestamps:
    def test_segments_and_words_are_in_order(self, client):
        options = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
        transcript = transcribe(client, TWO_CITIES, **options)
        assert transcript.duration == pytest.approx(44.37, abs=0.1)
        assert len(transcript.segments) >= 5
        for entries in (transcript.segments, transcript.words):
            for one, other in itertools.pairwise(entries):
                assert 0 <= one.start <= one.end <= other.start + 0.01
            assert entries[-1].end <= 44.5
        assert len(transcript.words) > 100
        assert " ".join(word.word for word in transcript.words) == transcript.text

    def test_subtitles_are_in_srt_and_vtt_format(self, stack):
        content = first_seconds().read_bytes()
        srt = post_audio(stack, content, response_format="srt")
        assert srt.text.startswith("1\n00:00:00,")
        vtt = post_audio(stack, content, response_format="vtt")
        assert vtt.headers["Content-Type"] == "text/vtt; charset=utf-8"
        assert vtt.text.startswith("WEBVTT\n\n00:00:00.")

    def test_stream_has_the_non_streamed_text_and_starts_before_transcription_ends(self, client):
        plain = transcribe(client, TWO_CITIES).text
        arrived, deltas = [], []
        for event in transcribe(client, TWO_CITIES, stream=True):
            arrived.append(time.monotonic())
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
        assert event.type == "transcript.text.done"
        assert event.text == "".join(deltas) == plain
        assert arrived[-1] - arrived[0] > 0.5


def recording():
    """Return the samples of a spoken clip, which lasts a few seconds, and its words."""
    path, text = next(iter(librivox().items()))
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    return samples, normalize_words(text)


def words_of(stack, samples, **fields):
    return normalize_words(post_audio(stack, wav(samples), **fields).json()["text"])


class TestUnusualRecordings:
    @pytest.mark.parametrize("seconds", [2, 8, 20])
    def test_no_segment_lasts_through_silence(self, stack, seconds):
        samples, _ = recording()
        spoken = len(samples) / 16_000
        content = wav(np.concatenate([samples, np.zeros(seconds * 16_000), samples]))
        segments = post_audio(stack, content, response_format="verbose_json").json()["segments"]
        before = [segment for segment in segments if segment["start"] < spoken]
        behind = [segment for segment in segments if segment["start"] >= spoken]
        assert before
        assert max(segment["end"] for segment in before) < spoken + 1
        assert min(segment["start"] for segment in behind) > spoken + seconds - 1

    @pytest.mark.parametrize("volume", [0.02, 0.005, 0.002])
    def test_quiet_speech_is_heard(self, stack, volume):
        samples, words = recording()
        assert jiwer.wer(words, words_of(stack, samples * volume)) <= 0.3

    def test_quiet_speaker_next_to_a_loud_one_is_heard(self, stack):
        samples, words = recording()
        heard = words_of(stack, np.concatenate([samples, np.zeros(48_000), samples * 0.005]))
        assert jiwer.wer(f"{words} {words}", heard) <= 0.3

    def test_stereo_out_of_phase_is_heard(self, stack):
        samples, words = recording()
        assert jiwer.wer(words, words_of(stack, np.stack([samples, -samples], axis=1))) <= 0.3

    @pytest.mark.parametrize("language", ["EN", "english", "en-US"])
    def test_language_may_be_a_code_a_name_or_a_locale(self, stack, language):
        samples, words = recording()
        assert jiwer.wer(words, words_of(stack, samples, language=language)) <= 0.3

    def test_language_outside_the_30_of_ahas_documentation_is_accepted(self, stack):
        samples, _ = recording()
        body = post_audio(stack, wav(samples), language="uk", response_format="verbose_json").json()
        assert body["language"] == "ukrainian"


class TestNoSpeech:
    @pytest.mark.parametrize("kind", ["silence", "noise", "quiet noise", "dither", "tone", "quiet tone"])
    def test_no_words_are_hallucinated(self, stack, kind):
        seconds = np.arange(8 * 16_000) / 16_000
        samples = {
            "silence": np.zeros_like(seconds),
            "noise": np.random.default_rng(1).normal(0, 0.05, seconds.shape),
            "quiet noise": np.random.default_rng(1).normal(0, 0.0005, seconds.shape),
            "dither": np.random.default_rng(1).integers(-1, 2, seconds.shape) / 32768,
            "quiet tone": 0.001 * np.sin(seconds * 2 * np.pi * 440),
            "tone": 0.3 * np.sin(seconds * 2 * np.pi * 440),
        }[kind]
        body = post_audio(stack, wav(samples)).json()
        assert body == {"text": "", "usage": {"type": "duration", "seconds": 8}}


class TestBadFiles:
    @pytest.mark.parametrize("content", [b"just text, named .wav", b"\0" * 100_000, wav(np.zeros(0))])
    def test_invalid_audio_is_400(self, stack, content):
        response = post_audio(stack, content)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, "file", "invalid_audio")

    def test_file_over_the_limit_is_rejected_during_the_upload(self, stack):
        connection = socket.create_connection(("127.0.0.1", stack.port))
        boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        connection.sendall(head.encode() + boundary + b"\0" * 1_000_000)
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")

    def test_invalid_files_do_not_affect_other_requests(self, stack, client):
        check_bad_files_among_good_ones(stack, client, 8)


class TestClientDisconnect:
    def test_client_disconnect_stops_the_transcription(self, stack, client):
        with pytest.raises(requests.Timeout):
            post_audio(stack, repeat_recording(20), timeout=2)
        time.sleep(5)
        started = time.monotonic()
        transcribe(client, next(iter(librivox())))
        first = time.monotonic() - started
        started = time.monotonic()
        transcribe(client, next(iter(librivox())))
        assert first < 3 * (time.monotonic() - started) + 1
