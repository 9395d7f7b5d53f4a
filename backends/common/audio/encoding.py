"""Encodes samples as an audio file incrementally: the first bytes of the file are available before the last samples."""

import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Format(NamedTuple):
    """An audio file's container and codec, by FFmpeg's names. A lossy codec also has a bit rate (bit/s) and settings.

    The settings make encoding fast: with FFmpeg's defaults, encoding can take longer than generating the speech.
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

# By default, FFmpeg collects up to a second of audio in an Ogg page before it writes the page. `page_duration`, in
# microseconds, shortens the pages.
_OPTIONS = {"flush_packets": "1", "page_duration": "100000"}


# Files up to this size are kept in memory.
_MAX_MEMORY = 8_000_000


class _Pipe:
    """An output file that cannot seek, so that FFmpeg does not go back at the end to update the header."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self, is_complete: bool) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class _File:
    """An output file that is complete only at the end: FFmpeg then writes the length into the header.

    Large files are kept on disk.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MAX_MEMORY)  # noqa: SIM115 - `take` closes it
        self.write, self.seek, self.tell = self._file.write, self._file.seek, self._file.tell

    def take(self, is_complete: bool) -> bytes:
        if not is_complete:
            return b""
        with self._file:
            self._file.seek(0)
            return self._file.read()


class Encoder:
    """Encodes mono samples from -1 to 1 at `rate` Hz as one file in the format FORMATS[name].

    A flac file is returned as a whole, because common readers need the length in its header.
    """

    def __init__(self, name: str, rate: int):
        audio_format = FORMATS[name]
        self._sink = _File() if name == "flac" else _Pipe()
        options = _OPTIONS if audio_format.container == "ogg" else {"flush_packets": "1"}
        self._container = av.open(self._sink, "w", format=audio_format.container, container_options=options)
        self._stream = self._container.add_stream(
            audio_format.codec, rate=rate, layout="mono", options=dict(audio_format.settings)
        )
        if audio_format.bit_rate:
            self._stream.bit_rate = audio_format.bit_rate
        self._stream.codec_context.open()
        self._rate, self._written = rate, 0
        context = self._stream.codec_context
        self._resampler = av.AudioResampler(context.format, "mono", rate, context.frame_size or None)

    def encode(self, samples: Samples) -> bytes:
        """Encode the samples and return the new bytes of the file, if any."""
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = self._rate, self._written
        self._written += len(pcm)
        self._mux(self._resampler.resample(frame))
        return self._sink.take(is_complete=False)

    def finish(self) -> bytes:
        """Finish the file and return its remaining bytes."""
        self._mux([*self._resampler.resample(None), None])
        self._container.close()
        return self._sink.take(is_complete=True)

    def _mux(self, frames: list[Any]) -> None:
        for frame in frames:
            self._container.mux(self._stream.encode(frame))
