"""Where in a block of audio somebody speaks, in windows of the 30 seconds that Whisper hears at a time."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from faster_whisper.vad import SpeechTimestampsMap, VadOptions, get_speech_timestamps

from backends.common.audio.decoding import RATE, Samples, quietest

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
