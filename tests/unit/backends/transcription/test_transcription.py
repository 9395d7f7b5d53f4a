"""Tests of the transcription backend with fake engines: audio decoding, splitting of audio, and scheduling."""

import io
import threading
import time
import wave

import av
import numpy as np
import pytest

from backends.common.audio.decoding import RATE, read_blocks
from backends.common.errors import InvalidRequest
from backends.common.stepwise import RoundRobin
from backends.transcription import transcriber as windows
from backends.transcription.ctranslate2_engine import _is_doubtful
from backends.transcription.engines import Segment, WindowTranscript, closest_language
from backends.transcription.transcriber import Transcriber, find_windows
from contract.options import TranscriptionOptions


def tone(seconds, rate=RATE, channels=1):
    samples = np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate) * 0.5
    return np.repeat((samples * 32767).astype(np.int16)[:, None], channels, axis=1)


def wav(samples, rate=RATE):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return content.getvalue()


def encoded(form, codec, seconds=3, rate=48_000):
    content = io.BytesIO()
    with av.open(content, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate).T.copy(), format="s16", layout="mono")
        frame.sample_rate = rate
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return content.getvalue()


def read(content, block=60, maximum=600):
    return list(read_blocks(content, block, maximum))


class TestAudio:
    @pytest.mark.parametrize(
        ("form", "codec"),
        [
            ("wav", "pcm_s16le"),
            ("wav", "pcm_f32le"),
            ("mp3", "libmp3lame"),
            ("mp4", "aac"),
            ("flac", "flac"),
            ("ogg", "libopus"),
            ("webm", "libopus"),
        ],
    )
    def test_common_formats_are_decoded(self, form, codec):
        (samples,) = read(encoded(form, codec))
        assert len(samples) / RATE == pytest.approx(3, abs=0.1)
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.1)

    @pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44_100, 2), (96_000, 8)])
    def test_audio_is_resampled_and_mixed_to_one_channel(self, rate, channels):
        (samples,) = read(wav(tone(2, rate, channels), rate))
        assert len(samples) == pytest.approx(2 * RATE, abs=RATE * 0.05)

    @pytest.mark.parametrize(
        "content", [b"hello", b"\0" * 5000, b"RIFF\xff\xff\xff\x7fWAVEfmt ", b"ID3" + b"\x04" * 200]
    )
    def test_files_that_are_not_audio_are_rejected(self, content):
        with pytest.raises(InvalidRequest) as caught:
            read(content)
        assert (caught.value.param, caught.value.code) == ("file", "invalid_audio")

    @pytest.mark.parametrize(
        "playlist",
        ["#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"],
    )
    def test_playlists_are_rejected(self, playlist, tmp_path):
        (tmp_path / "secret.wav").write_bytes(wav(tone(3)))
        for address in (tmp_path / "secret.wav", f"file://{tmp_path}/secret.wav"):
            with pytest.raises(InvalidRequest):
                read(playlist.format(address).encode())

    def test_a_file_without_samples_is_rejected(self):
        with pytest.raises(InvalidRequest, match="no audio"):
            read(wav(tone(0)))

    def test_a_truncated_mp3_is_read_up_to_its_end(self):
        content = encoded("mp3", "libmp3lame", seconds=10)
        (samples,) = read(content[: len(content) // 2])
        assert 3 < len(samples) / RATE < 6

    def test_long_audio_is_split_into_blocks_where_it_is_quiet(self):
        samples = tone(100)
        samples[50 * RATE : 51 * RATE] = 0
        blocks = read(wav(samples), block=60)
        assert [round(len(block) / RATE) for block in blocks] in ([50, 50], [51, 49])
        assert sum(map(len, blocks)) == len(samples)
        assert np.abs(blocks[1][:10]).max() < 0.01

    def test_audio_after_damaged_data_is_decoded(self):
        content = bytearray(encoded("mp4", "aac", seconds=20))
        middle = len(content) // 2
        content[middle : middle + 60] = b"\xff" * 60
        assert len(np.concatenate(read(bytes(content)))) / RATE > 18

    @pytest.mark.parametrize("inverted", [-1.0, -0.8])
    def test_stereo_out_of_phase_is_not_silent(self, inverted):
        mono = tone(3).astype(np.float32)
        stereo = np.concatenate([mono, mono * inverted], axis=1).astype(np.int16)
        (samples,) = read(wav(stereo))
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.07)

    def test_stereo_in_phase_is_the_mean_of_its_channels(self):
        mono = tone(3).astype(np.float32)
        for factor in (1.0, 0.0, -0.5):
            (samples,) = read(wav(np.concatenate([mono, mono * factor], axis=1).astype(np.int16)))
            assert np.abs(samples).max() == pytest.approx(0.25 * (1 + factor), abs=0.02)

    def test_a_very_low_sample_rate_is_rejected(self):
        with pytest.raises(InvalidRequest, match="the minimum is 4000 Hz"):
            read(wav(tone(10, 100), 100))

    def test_the_sample_rate_may_change_within_a_file(self):
        content = encoded("adts", "aac", seconds=3) + encoded("adts", "aac", seconds=3, rate=22_050)
        assert len(np.concatenate(read(content))) / RATE == pytest.approx(6, abs=0.4)

    def test_audio_over_the_maximum_length_is_rejected(self):
        with pytest.raises(InvalidRequest, match="limit of 5 seconds"):
            read(wav(tone(6)), maximum=5)

    def test_audio_over_the_maximum_length_is_rejected_even_in_a_small_file(self):
        """A small file can hold hours of audio, because compressed silence takes little space."""
        content = io.BytesIO()
        with av.open(content, "w", format="ogg") as container:
            stream = container.add_stream("libopus", rate=48_000, layout="mono")
            for _ in range(60):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
                frame.sample_rate = 48_000
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with pytest.raises(InvalidRequest, match="limit of 30 seconds"):
            read(content.getvalue(), block=10, maximum=30)


class FakeEngine:
    """Returns two segments per window, and records the number of windows and the options of each call of `decode`."""

    batch_size, uses_previous_text, languages = 3, True, frozenset({"en", "zh"})
    has_times = can_translate = True

    def __init__(self):
        self.calls = []

    def decode(self, windows, options):
        self.calls.append((len(windows), options))
        for _ in windows:
            yield None
            segments = [Segment(i, i + 1, f" part {i}", [1], 0.0, 1.0) for i in range(2)]
            yield WindowTranscript(segments, options.language or "en")


def transcriber(engine, seconds, is_alone=True, **options):
    return Transcriber(
        engine, wav(tone(seconds)), TranscriptionOptions(vad=False, **options), 60, 600, lambda: is_alone
    )


def segments_of(made):
    return [segment for segment in made.segments() if segment]


class TestTranscriber:
    def test_a_language_that_the_model_does_not_know_is_rejected(self):
        with pytest.raises(InvalidRequest, match="only: en, zh") as caught:
            transcriber(FakeEngine(), 1, language="uk")
        assert caught.value.param == "language"
        assert segments_of(transcriber(FakeEngine(), 1, language="yue"))  # the closest language is Chinese

    def test_times_and_prompt_of_a_window_continue_those_of_the_previous_window(self):
        engine = FakeEngine()
        made = transcriber(engine, 100, is_alone=False, prompt="names")
        segments = segments_of(made)
        assert [segment["id"] for segment in segments] == list(range(len(segments)))
        starts = [segment["start"] for segment in segments]
        assert starts == sorted(starts)
        assert starts[-1] > 60
        assert made.duration == pytest.approx(100, abs=0.1)
        first, second = (options for _, options in engine.calls[:2])
        assert (first.prompt, first.language) == ("names", None)
        assert second.prompt.endswith("part 0 part 1")
        assert second.language == "en"
        assert {count for count, _ in engine.calls} == {1}

    def test_a_lone_request_is_decoded_in_batches_once_the_language_is_known(self):
        engine = FakeEngine()
        made = Transcriber(
            engine, wav(tone(170)), TranscriptionOptions(vad=False, prompt="names"), 300, 600, lambda: True
        )
        assert len(segments_of(made)) >= 12
        assert [count for count, _ in engine.calls][:2] == [1, 3]
        assert engine.calls[1][1].prompt == "names"

    def test_an_engine_without_previous_text_gets_only_the_prompt_of_the_request(self):
        engine = FakeEngine()
        engine.uses_previous_text = False
        segments_of(transcriber(engine, 100, prompt="names"))
        assert {options.prompt for _, options in engine.calls} == {"names"}


class UnreliableEngine(FakeEngine):
    """Returns segments with a high temperature, which marks their text as unreliable."""

    def decode(self, windows, options):
        for decoded in super().decode(windows, options):
            yield decoded and decoded._replace(segments=[s._replace(temperature=0.8) for s in decoded.segments])


def test_unreliable_text_is_not_part_of_the_next_prompt():
    engine = UnreliableEngine()
    segments_of(transcriber(engine, 100, prompt="names"))
    assert {options.prompt for _, options in engine.calls} == {"names"}


class SilentFirstWindow(FakeEngine):
    """Reports English but no speech for the first window, and French speech for the later windows."""

    def decode(self, windows, options):
        if not self.calls:
            self.calls.append((1, options))
            yield WindowTranscript([], "en")
            return
        for decoded in super().decode(windows, options):
            yield decoded and decoded._replace(language=options.language or "fr")


def test_silence_does_not_decide_the_language():
    made = transcriber(SilentFirstWindow(), 80)
    assert len(segments_of(made)) >= 4
    assert made.language == "fr"


def test_no_segment_ends_after_the_audio():
    assert [segment["end"] for segment in segments_of(transcriber(FakeEngine(), 1.5))] == [1, 1.5]


class TestWindows:
    def test_pauses_are_removed_and_times_restored(self, monkeypatch):
        pieces = [{"start": 2 * RATE, "end": 4 * RATE}, {"start": 10 * RATE, "end": 13 * RATE}]
        monkeypatch.setattr(windows, "_speech", lambda samples: pieces)
        (window,) = find_windows(np.arange(20 * RATE, dtype=np.float32), vad=True)
        assert len(window.samples) == 5 * RATE
        assert window.to_block_times(1, 2.9) == (3, 10.9)
        assert window.to_block_times(2.5, 99) == (10.5, 13)

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (0, 2, (2, 4)),
            (0, 2.4, (2, 4)),  # Whisper rounds the end up, past the joint at 2 seconds
            (0.5, 2.69, (2.5, 4)),
            (0, 2.8, (2, 10.8)),  # too much behind the joint: the segment continues after the pause
            (1.8, 4, (10, 12)),  # the start is rounded down
            (1.9, 2.05, (3.9, 4)),
            (1.95, 2.1, (10, 10.1)),
            (2, 3, (10, 11)),
            (4.9, 9, (12.9, 13)),
            (7, 9, (13, 13)),
        ],
    )
    def test_no_time_runs_through_a_removed_pause(self, monkeypatch, start, end, expected):
        pieces = [{"start": 2 * RATE, "end": 4 * RATE}, {"start": 10 * RATE, "end": 13 * RATE}]
        monkeypatch.setattr(windows, "_speech", lambda samples: pieces)
        (window,) = find_windows(np.arange(20 * RATE, dtype=np.float32), vad=True)
        assert window.to_block_times(start, end) == pytest.approx(expected)

    def test_no_window_exceeds_whispers_limit(self, monkeypatch):
        pieces = [{"start": i * 20 * RATE, "end": (i * 20 + 12) * RATE} for i in range(5)]
        monkeypatch.setattr(windows, "_speech", lambda samples: pieces)
        found = list(find_windows(np.zeros(100 * RATE, np.float32), vad=True))
        assert [len(window.samples) / RATE for window in found] == [24, 24, 12]

    def test_without_vad_no_audio_is_removed(self):
        found = list(find_windows(np.zeros(100 * RATE, np.float32), vad=False))
        assert sum(len(window.samples) for window in found) == 100 * RATE
        assert max(len(window.samples) for window in found) <= 30 * RATE


class TestDoubt:
    """Tests which windows of a batch are doubtful. The engine decodes a doubtful window again, outside the batch."""

    GOOD = Segment(0, 29, " It was the best of times.", [1], 0.0, 1.0, -0.3, 0.01)

    def test_a_good_window_is_not_doubtful(self):
        assert not _is_doubtful([self.GOOD], 30)

    @pytest.mark.parametrize(
        "change", [{"end": 28}, {"avg_logprob": -1.5}, {"no_speech_prob": 0.9}, {"text": " again and" * 30}]
    )
    def test_an_early_end_improbable_text_silence_or_repetition_makes_a_window_doubtful(self, change):
        assert _is_doubtful([self.GOOD._replace(**change)], 30)

    def test_a_window_without_segments_is_doubtful(self):
        assert _is_doubtful([], 30)


@pytest.mark.parametrize(("language", "code"), [("en", "en"), ("yue", "zh"), ("fil", None), (None, None)])
def test_an_unsupported_language_is_replaced_by_a_close_supported_language_if_any(language, code):
    assert closest_language(language, frozenset({"en", "zh"})) == code


class Work:
    def __init__(self, steps, order, name):
        self._steps, self._order, self._name = steps, order, name
        self.done, self.error, self.cancelled, self.was_dropped = threading.Event(), None, False, False

    def is_cancelled(self):
        return self.cancelled

    def steps(self):
        for i in range(self._steps):
            if self._name == "bad" and i == 1:
                raise ValueError("broken")
            self._order.append(self._name)
            time.sleep(0.25 if self._name in ("long", "short") else 0)  # longer than one turn of RoundRobin
            yield
        self.done.set()

    def fail(self, error):
        self.error = error
        self.done.set()

    def cancel(self):
        self.was_dropped = True
        self.done.set()


class TestRoundRobin:
    @pytest.fixture
    def round_robin(self):
        round_robin = RoundRobin()
        yield round_robin
        round_robin.stop()

    def test_a_short_request_does_not_wait_for_a_long_one(self, round_robin):
        order = []
        gate = threading.Event()
        blocker = Work(1, order, "first")
        steps = blocker.steps
        blocker.steps = lambda: (gate.wait(5) and step for step in steps())
        round_robin.add(blocker)
        long, short = Work(8, order, "long"), Work(2, order, "short")
        round_robin.add(long)
        round_robin.add(short)
        gate.set()
        assert long.done.wait(5)
        assert short.done.wait(5)
        assert order.index("short") < 4
        assert [name for name in order[:5] if name != "first"][:4] == ["long", "short", "long", "short"]

    def test_a_failure_affects_no_other_request(self, round_robin):
        order = []
        bad, good = Work(3, order, "bad"), Work(3, order, "good")
        round_robin.add(bad)
        round_robin.add(good)
        assert bad.done.wait(5)
        assert good.done.wait(5)
        assert isinstance(bad.error, ValueError)
        assert good.error is None

    def test_a_cancelled_request_is_dropped(self, round_robin):
        work = Work(1_000_000, [], "left")
        round_robin.add(work)
        work.cancelled = True
        assert work.done.wait(5)
        assert work.was_dropped


@pytest.mark.parametrize(
    ("attribute", "options", "param"),
    [
        ("can_translate", {"task": "translate"}, "model"),
        ("has_times", {"word_timestamps": True}, "timestamp_granularities"),
    ],
)
def test_what_a_model_cannot_do_is_rejected(attribute, options, param):
    engine = FakeEngine()
    setattr(engine, attribute, False)
    with pytest.raises(InvalidRequest) as caught:
        transcriber(engine, 1, **options)
    assert caught.value.param == param


def test_windows_of_a_model_without_times_are_short(monkeypatch):
    pieces = [{"start": RATE * 4 * n, "end": RATE * (4 * n + 3)} for n in range(6)]
    monkeypatch.setattr(windows, "_speech", lambda samples: pieces)
    samples = np.ones(RATE * 24, np.float32)
    assert [len(window.samples) / RATE for window in find_windows(samples, True, 10)] == [9.0, 9.0]
    assert [len(window.samples) / RATE for window in find_windows(samples, True)] == [18.0]
