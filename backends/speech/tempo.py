"""Speech faster or slower at the same pitch, for what a model cannot do by itself: FFmpeg's atempo."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def change_tempo(samples: Samples, rate: int, factor: float) -> Samples:
    """Return mono samples that take 1 / `factor` of the time."""
    if factor == 1 or not len(samples):
        return samples
    graph = av.filter.Graph()
    source = graph.add_abuffer(format="flt", sample_rate=rate, layout="mono")
    sink = graph.add("abuffersink")
    last: Any = source
    for step in _steps(factor):
        tempo = graph.add("atempo", f"{step:.4f}")
        last.link_to(tempo)
        last = tempo
    last.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
    frame.sample_rate = rate
    source.push(frame)
    source.push(None)
    changed = []
    while True:
        try:
            changed.append(sink.pull().to_ndarray().reshape(-1))
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(changed) if changed else samples[:0]


def _steps(factor: float) -> Iterator[float]:
    """Yield factors that FFmpeg takes, 0.5 at the least, with `factor` as their product."""
    while factor < 0.5:
        yield 0.5
        factor /= 0.5
    yield factor
