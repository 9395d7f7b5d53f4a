"""Transcribes one file: splits its audio into windows, and converts times in a window to times in the file."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from faster_whisper.vad import SpeechTimestampsMap, VadOptions, get_speech_timestamps

from backends.common.audio.decoding import RATE, Samples, quietest, read_blocks
from backends.transcription.engines import Segment, TranscriptionEngine
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
            windows = list(find_windows(samples, self._options.vad))
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
        def at(time: float, is_end: bool) -> float:
            return round(self.duration + window.to_block_time(time, is_end), 2)

        start = at(segment.start, False)
        described = {
            "id": self._next_id,
            "seek": int(start * 100),
            "start": start,
            "end": max(start, at(segment.end, True)),
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
                {"word": word.word, "start": at(word.start, False), "end": at(word.end, True)} for word in segment.words
            ]
        return described


WINDOW_SECONDS = 30

# Pauses are shortened to at most twice the padding, 0.8 seconds. No stretch of speech is longer than a window.
_VAD = VadOptions(min_silence_duration_ms=500, speech_pad_ms=400, max_speech_duration_s=WINDOW_SECONDS - 1)
_MAX_SAMPLES = WINDOW_SECONDS * RATE

# Windows shorter than 0.1 seconds are skipped: no speech can be recognized in them.
_MIN_SAMPLES = RATE // 10


class Window(NamedTuple):
    """Samples of a block of audio to decode together.

    `to_block_time` converts a time in the window to a time in the block, both in seconds. Its second argument is
    whether the time is the end of a segment or word. Where a pause was removed, an end time becomes the time before the
    pause, and a start time becomes the time after the pause.
    """

    samples: Samples
    to_block_time: Callable[[float, bool], float]


def find_windows(samples: Samples, vad: bool) -> Iterator[Window]:
    """Yield the windows of a block: only its speech if `vad`, otherwise the whole block, cut at quiet positions."""
    pieces = _speech(samples) if vad else _cut(samples)
    for window in pieces:
        joined = np.concatenate([samples[piece["start"] : piece["end"]] for piece in window])
        if len(joined) >= _MIN_SAMPLES:
            yield Window(joined, _to_block_time(window, len(joined) / RATE))


def _to_block_time(pieces: list[dict[str, int]], length: float) -> Callable[[float, bool], float]:
    restore = SpeechTimestampsMap(pieces, RATE)
    return lambda time, is_end: float(restore.get_original_time(min(max(time, 0.0), length), is_end=is_end))


def _speech(samples: Samples) -> Iterator[list[dict[str, int]]]:
    waiting: list[dict[str, int]] = []
    length = 0
    for piece in get_speech_timestamps(samples, _VAD):
        added = piece["end"] - piece["start"]
        if waiting and length + added > _MAX_SAMPLES:
            yield waiting
            waiting, length = [], 0
        waiting, length = [*waiting, piece], length + added
    if waiting:
        yield waiting


def _cut(samples: Samples) -> Iterator[list[dict[str, int]]]:
    start = 0
    while len(samples) - start > _MAX_SAMPLES:
        end = start + quietest(samples[start : start + _MAX_SAMPLES], seconds=10)
        yield [{"start": start, "end": end}]
        start = end
    yield [{"start": start, "end": len(samples)}]
