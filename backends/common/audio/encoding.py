"""From samples to an encoded file, piece by piece: each block's bytes are there as soon as it is encoded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Format(NamedTuple):
    """FFmpeg's names of a container and its codec; bits a second and settings of one that loses something.

    The settings are fast ones: of the codecs' own, some take more time than making the speech does.
    """

    container: str
    codec: str
    bit_rate: int | None = None
    settings: Mapping[str, str] = {}


FORMATS = {
    "mp3": Format("mp3", "libmp3lame", 64_000, {"compression_level": "7"}),
    "opus": Format("ogg", "libopus", 32_000, {"compression_level": "5"}),
    "aac": Format("adts", "aac", 64_000, {"aac_coder": "fast"}),
    "flac": Format("flac", "flac"),
    "wav": Format("wav", "pcm_s16le"),
    "pcm": Format("s16le", "pcm_s16le"),
}

# Pages of Ogg are as long as a second unless said (in microseconds).
_OPTIONS = {"flush_packets": "1", "page_duration": "100000"}


class _Pipe:
    """What cannot be rewound: FFmpeg then writes no header that it would have to come back to."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class Encoder:
    """One file in the making, of mono samples from -1 to 1 at `rate` a second."""

    def __init__(self, name: str, rate: int):
        form = FORMATS[name]
        self._sink = _Pipe()
        options = _OPTIONS if form.container == "ogg" else {"flush_packets": "1"}
        self._container = av.open(self._sink, "w", format=form.container, container_options=options)
        self._stream = self._container.add_stream(form.codec, rate=rate, layout="mono", options=dict(form.settings))
        if form.bit_rate:
            self._stream.bit_rate = form.bit_rate
        self._stream.codec_context.open()
        self._rate, self._written = rate, 0
        context = self._stream.codec_context
        self._resampler = av.AudioResampler(context.format, "mono", rate, context.frame_size or None)

    def encode(self, samples: Samples) -> bytes:
        """Return what there is of the file after these samples, and was not before."""
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = self._rate, self._written
        self._written += len(pcm)
        self._mux(self._resampler.resample(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        """Return the end of the file."""
        self._mux([*self._resampler.resample(None), None])
        self._container.close()
        return self._sink.take()

    def _mux(self, frames: list[Any]) -> None:
        for frame in frames:
            self._container.mux(self._stream.encode(frame))
