"""Speech faster or slower at the same pitch, for what a model cannot do by itself: FFmpeg's atempo."""

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def change_tempo(samples: Samples, rate: int, factor: float) -> Samples:
    """Return mono samples that take 1 / `factor` of the time, 0.5 to 100."""
    if factor == 1 or not len(samples):
        return samples
    graph = av.filter.Graph()
    source = graph.add_abuffer(format="flt", sample_rate=rate, layout="mono")
    sink = graph.add("abuffersink")
    source.link_to(tempo := graph.add("atempo", f"{factor:.4f}"))
    tempo.link_to(sink)
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
