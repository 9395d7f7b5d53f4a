"""One transcription in the making: blocks of audio, windows of speech in each, segments in the time of the whole."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from faster_whisper.vad import SpeechTimestampsMap, VadOptions, get_speech_timestamps

from backends.common.audio.decoding import RATE, Samples, quietest, read_blocks
from backends.transcription.engines import Segment, TranscriptionEngine
from contract.options import TranscriptionOptions

# So much of the text before a window goes into it as its prompt, so that names and style go on.
_CONTEXT_CHARACTERS = 200

# A text that took a higher temperature than this may be anything.
_GUESSED = 0.5


class Transcriber:
    """Turns an encoded file into segments; every step of the work is one item of `segments()`.

    `alone` tells whether no other one waits: then windows are decoded together, which is faster, but a longer step.
    """

    def __init__(
        self,
        engine: TranscriptionEngine,
        content: bytes,
        options: TranscriptionOptions,
        block_seconds: float,
        max_seconds: float,
        alone: Callable[[], bool],
    ):
        self._engine, self._options, self._alone = engine, options, alone
        self._blocks = read_blocks(content, block_seconds, max_seconds)
        self.language = options.language or ""
        self.duration = 0.0
        self._number, self._prompt = 0, options.prompt

    def segments(self) -> Iterator[dict[str, Any] | None]:
        """Yield segments as OpenAI describes them, times in seconds; None where a step gave none.

        Raises InvalidRequest. `language` is known after the first one, `duration` after the last.
        """
        for samples in self._blocks:
            windows = list(find_windows(samples, self._options.vad))
            yield None  # looking for speech took a while: somebody else's turn
            while windows:
                batch_size = self._engine.batch_size if self._options.language and self._alone() else 1
                # The text before would be that of the first of several alone.
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
            self._remember(decoded.segments)
            yield None

    def _remember(self, segments: list[Segment]) -> None:
        """Have what follows decoded in the same language, and after this text."""
        prompt = self._options.prompt
        if any(segment.temperature > _GUESSED for segment in segments):
            prompt = self._prompt  # or what may be wrong would make what follows wrong
        elif self._engine.uses_previous_text:
            texts = [prompt or "", *(segment.text.strip() for segment in segments)]
            prompt = " ".join(texts)[-_CONTEXT_CHARACTERS:]
        if segments:
            self._options = replace(self._options, language=self.language, prompt=prompt)

    def _describe(self, segment: Segment, window: "Window") -> dict[str, Any]:
        def at(time: float, is_end: bool) -> float:
            return round(self.duration + window.original(time, is_end), 2)

        start = at(segment.start, False)
        described = {
            "id": self._number,
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
        self._number += 1
        if segment.words is not None:
            described["words"] = [
                {"word": word.word, "start": at(word.start, False), "end": at(word.end, True)} for word in segment.words
            ]
        return described


WINDOW_SECONDS = 30

# Longer pauses are cut down to twice the padding; no stretch of speech is longer than a window.
_VAD = VadOptions(min_silence_duration_ms=500, speech_pad_ms=400, max_speech_duration_s=WINDOW_SECONDS - 1)
_MAXIMUM = WINDOW_SECONDS * RATE

# All that is left after this much of a window cannot be heard apart.
_MINIMUM = RATE // 10


class Window(NamedTuple):
    """Samples that belong together, and how a time in them, in seconds, becomes one of the block.

    The second argument tells whether it is the end of something: at a cut, it then stays before the pause.
    """

    samples: Samples
    original: Callable[[float, bool], float]


def find_windows(samples: Samples, vad: bool) -> Iterator[Window]:
    """Yield the windows of a block: stretches with speech joined, without the pauses; or all of it, cut where quiet."""
    pieces = _speech(samples) if vad else _cut(samples)
    for window in pieces:
        joined = np.concatenate([samples[piece["start"] : piece["end"]] for piece in window])
        if len(joined) >= _MINIMUM:
            yield Window(joined, _original(window, len(joined) / RATE))


def _original(pieces: list[dict[str, int]], length: float) -> Callable[[float, bool], float]:
    restore = SpeechTimestampsMap(pieces, RATE)
    return lambda time, is_end: float(restore.get_original_time(min(max(time, 0.0), length), is_end=is_end))


def _speech(samples: Samples) -> Iterator[list[dict[str, int]]]:
    waiting: list[dict[str, int]] = []
    length = 0
    for piece in get_speech_timestamps(samples, _VAD):
        added = piece["end"] - piece["start"]
        if waiting and length + added > _MAXIMUM:
            yield waiting
            waiting, length = [], 0
        waiting, length = [*waiting, piece], length + added
    if waiting:
        yield waiting


def _cut(samples: Samples) -> Iterator[list[dict[str, int]]]:
    start = 0
    while len(samples) - start > _MAXIMUM:
        end = start + quietest(samples[start : start + _MAXIMUM], seconds=10)
        yield [{"start": start, "end": end}]
        start = end
    yield [{"start": start, "end": len(samples)}]
