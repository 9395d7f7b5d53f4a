"""Transcribes one file: splits its audio into windows, and converts times in a window to times in the file."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps

from backends.common.audio.decoding import RATE, Samples, quietest, read_blocks
from backends.common.errors import InvalidRequest
from backends.transcription.engines import Segment, TranscriptionEngine, closest_language
from contract.options import TranscriptionOptions

# A window's prompt is the end of the preceding text, at most this many characters. It keeps names and style consistent.
_CONTEXT_CHARACTERS = 200

# Text that was decoded at a temperature above this is unreliable.
_GUESSED = 0.5


class Transcriber:
    """Converts an encoded audio file to segments. Requests take turns after each item that `segments()` yields.

    `is_alone` returns whether the model has no other request. If so, and if the language is known, windows are decoded
    in batches, which is faster but makes other requests wait longer for their turn.
    """

    def __init__(
        self,
        engine: TranscriptionEngine,
        content: bytes,
        options: TranscriptionOptions,
        block_seconds: float,
        max_seconds: float,
        is_alone: Callable[[], bool],
    ):
        if options.language and closest_language(options.language, engine.languages) is None:
            known = ", ".join(sorted(engine.languages))
            raise InvalidRequest(
                f"This model does not know the language '{options.language}', only: {known}", "language"
            )
        if options.task == "translate" and not engine.can_translate:
            raise InvalidRequest("This model cannot translate", "model")
        if options.word_timestamps and not engine.has_times:
            raise InvalidRequest("This model does not recognize the times of words", "timestamp_granularities")
        self._engine, self._options, self._is_alone = engine, options, is_alone
        self._blocks = read_blocks(content, block_seconds, max_seconds)
        self.language = options.language or ""
        self.duration = 0.0
        self._next_id, self._prompt = 0, options.prompt

    def segments(self) -> Iterator[dict[str, Any] | None]:
        """Yield segments in OpenAI's format, with times in seconds. Yield None after a step that produced no segment.

        The attribute `language` is set before the first segment is yielded; `duration` is complete when all segments
        have been yielded. Raises InvalidRequest if the file is invalid.
        """
        for samples in self._blocks:
            joined_seconds = WINDOW_SECONDS if self._engine.has_times else _SEGMENT_SECONDS
            windows = list(find_windows(samples, self._options.vad, joined_seconds))
            yield None  # finding speech took a while: let other requests proceed
            while windows:
                batch_size = self._engine.batch_size if self._options.language and self._is_alone() else 1
                # A batch gets the request's own prompt: the preceding text would suit only the batch's first window.
                options = self._options if batch_size == 1 else replace(self._options, prompt=self._prompt)
                yield from self._decode(windows[:batch_size], options)
                del windows[:batch_size]
            self.duration += len(samples) / RATE

    def _decode(self, windows: "list[Window]", options: TranscriptionOptions) -> Iterator[dict[str, Any] | None]:
        waiting = iter(windows)
        for decoded in self._engine.decode([window.samples for window in windows], options):
            if decoded is None:
                yield None
                continue
            window = next(waiting)
            if decoded.segments:
                self.language = self.language or decoded.language
            for segment in decoded.segments:
                yield self._describe(segment, window)
            self._update_context(decoded.segments)
            yield None

    def _update_context(self, segments: list[Segment]) -> None:
        """Use the language of these segments for the following windows.

        Use their text as the next prompt if the text is reliable and the engine uses the previous text.
        """
        prompt = self._options.prompt
        if any(segment.temperature > _GUESSED for segment in segments):
            prompt = self._prompt  # wrong text would mislead the model in the following windows
        elif self._engine.uses_previous_text:
            texts = [prompt or "", *(segment.text.strip() for segment in segments)]
            prompt = " ".join(texts)[-_CONTEXT_CHARACTERS:]
        if segments:
            self._options = replace(self._options, language=self.language, prompt=prompt)

    def _describe(self, segment: Segment, window: "Window") -> dict[str, Any]:
        start, end = self._file_times(segment.start, segment.end, window)
        described = {
            "id": self._next_id,
            "seek": int(start * 100),
            "start": start,
            "end": end,
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        }
        self._next_id += 1
        if segment.words is not None:
            described["words"] = [
                {"word": word.word, "start": times[0], "end": times[1]}
                for word in segment.words
                for times in [self._file_times(word.start, word.end, window)]
            ]
        return described

    def _file_times(self, start: float, end: float, window: "Window") -> tuple[float, float]:
        """Return the times in the file, in seconds, of a stretch of speech in a window."""
        first, last = window.to_block_times(start, end)
        return round(self.duration + first, 2), round(self.duration + max(first, last), 2)


WINDOW_SECONDS = 30

# If the model has no times, pieces of speech are joined only up to this length: each window becomes a segment.
_SEGMENT_SECONDS = 10

# Pauses are shortened to at most twice the padding, 0.8 seconds. No stretch of speech is longer than a window.
_VAD = VadOptions(min_silence_duration_ms=500, speech_pad_ms=400, max_speech_duration_s=WINDOW_SECONDS - 1)
_MAX_SAMPLES = WINDOW_SECONDS * RATE

# Windows shorter than 0.1 seconds are skipped: no speech can be recognized in them.
_MIN_SAMPLES = RATE // 10


# An end so close behind a joint of two pieces belongs to the piece before it, and a start so close before a joint to
# the piece behind it. Each piece begins and ends with the padding, and Whisper's times are imprecise.
_JOINT_SECONDS = 0.7

# Before voice activity detection, quiet audio is amplified until its loudest parts have this level, at most by 80 dB.
_PEAK, _MAX_GAIN = 0.5, 10_000.0

# A piece below this fraction of another piece's level is far quieter.
_FAR_QUIETER = 0.1

# The sound of an interval is loud enough to be looked at again if it exceeds this level, one step of 16-bit audio. An
# interval must have this many seconds.
_AUDIBLE, _MIN_GAP_SECONDS = 1 / 32768, 1.0


class Window(NamedTuple):
    """Samples of a block of audio to decode together.

    `to_block_times` converts the start and the end of a stretch of speech in the window to times in the block, all in
    seconds. Where a pause was removed, an end becomes the time before the pause, and a start the time after it.
    """

    samples: Samples
    to_block_times: Callable[[float, float], tuple[float, float]]


Piece = dict[str, int]
"""A part of a block: the indexes of its first sample, `start`, and of the sample after its last, `end`."""


def find_windows(samples: Samples, vad: bool, joined_seconds: float = WINDOW_SECONDS) -> Iterator[Window]:
    """Yield the windows of a block: only its speech if `vad`, otherwise the whole block, cut at quiet positions.

    Pieces of speech are joined to windows of at most `joined_seconds`.
    """
    pieces = _windows_of_speech(samples, round(joined_seconds * RATE)) if vad else _cut(samples)
    for window in pieces:
        joined = np.concatenate(_leveled([samples[piece["start"] : piece["end"]] for piece in window]))
        if len(joined) >= _MIN_SAMPLES:
            yield Window(joined, partial(_block_times, window))


def _leveled(pieces: list[Samples]) -> list[Samples]:
    """Return pieces of equal loudness, if one is far quieter than another: Whisper would not hear the quiet one."""
    levels = [_level(piece) for piece in pieces]
    return [
        _amplified(piece, max(levels) / level) if 0 < level < _FAR_QUIETER * max(levels) else piece
        for piece, level in zip(pieces, levels, strict=True)
    ]


def _amplified(samples: Samples, gain: float) -> Samples:
    if gain <= 1:
        return samples
    louder: Samples = np.clip(samples * np.float32(min(gain, _MAX_GAIN)), -1, 1)
    return louder


def _level(samples: Samples) -> float:
    """Return the level of the loudest parts, from 0 to 1, without the loudest thousandth, which may be a click."""
    return float(np.quantile(np.abs(samples), 0.999)) if len(samples) else 0.0


def _block_times(pieces: list[Piece], start: float, end: float) -> tuple[float, float]:
    lengths = [(piece["end"] - piece["start"]) / RATE for piece in pieces]
    ends = list(itertools.accumulate(lengths))
    begins = [0.0, *ends[:-1]]
    start, end = (min(max(time, 0.0), ends[-1]) for time in (start, end))
    first = max(i for i, begin in enumerate(begins) if begin <= start or i == 0)
    last = max(i for i, begin in enumerate(begins) if begin < end or i == 0)
    if last > first:
        before, behind = ends[first] - start, end - begins[last]
        if behind < _JOINT_SECONDS and behind <= before:
            last, end = last - 1, ends[last - 1]
        elif before < _JOINT_SECONDS:
            first, start = first + 1, begins[first + 1]
    return pieces[first]["start"] / RATE + start - begins[first], pieces[last]["start"] / RATE + end - begins[last]


def _windows_of_speech(samples: Samples, max_samples: int) -> Iterator[list[Piece]]:
    waiting: list[Piece] = []
    length = 0
    for piece in _speech(samples):
        added = piece["end"] - piece["start"]
        if waiting and length + added > max_samples:
            yield waiting
            waiting, length = [], 0
        waiting, length = [*waiting, piece], length + added
    if waiting:
        yield waiting


def _speech(samples: Samples) -> list[Piece]:
    """Return the pieces of a block that are speech, also if the speech is quiet, or far quieter than other speech."""
    found = _detect(samples)
    pieces, position = list(found), 0
    for piece in [*found, {"start": len(samples), "end": len(samples)}]:
        gap = samples[position : piece["start"]]
        if found and len(gap) >= _MIN_GAP_SECONDS * RATE and np.abs(gap).max(initial=0) > _AUDIBLE:
            pieces += [{"start": p["start"] + position, "end": p["end"] + position} for p in _detect(gap)]
        position = piece["end"]
    return sorted(pieces, key=lambda piece: piece["start"])


def _detect(samples: Samples) -> list[Piece]:
    """Return the pieces that are speech. The samples are amplified so that quiet speech is heard."""
    level = _level(samples)
    if not level:
        return []
    found: list[Piece] = get_speech_timestamps(_amplified(samples, _PEAK / level), _VAD)
    return found


def _cut(samples: Samples) -> Iterator[list[Piece]]:
    start = 0
    while len(samples) - start > _MAX_SAMPLES:
        end = start + quietest(samples[start : start + _MAX_SAMPLES], seconds=10)
        yield [{"start": start, "end": end}]
        start = end
    yield [{"start": start, "end": len(samples)}]
