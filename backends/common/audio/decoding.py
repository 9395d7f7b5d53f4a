"""Decodes audio files with FFmpeg in blocks, so that the samples of a long file are never all in memory."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from backends.common.errors import InvalidRequest

RATE = 16_000

# A full block is cut in the middle of the quietest interval of _QUIET_SECONDS within its last _SEARCH_SECONDS. The
# samples after the cut begin the next block.
_SEARCH_SECONDS, _QUIET_SECONDS = 20, 0.2

# FFmpeg may open only audio and video containers. For a playlist, it would open the files and URLs in the playlist.
_FORMATS = "wav,w64,aiff,caf,au,mp3,aac,ac3,amr,flac,ogg,mov,mp4,m4a,3gp,matroska,webm,asf,avi,mpeg,mpegts"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}

# FFmpeg only estimates the duration of files in these formats, so their duration is not checked before decoding.
_ESTIMATED = {"aac", "ac3", "amr", "mp3", "mpeg", "mpegts"}

# Stereo is out of phase if the energy of the channels' difference is this many times that of their mean. Of the
# energies of earlier frames, this fraction is kept from frame to frame.
_OUT_OF_PHASE, _MEMORY = 20.0, 0.95

# The minimum sample rate in Hz. At lower rates, a single frame may last minutes, and would be large once resampled.
_MIN_RATE = 4000

Samples = NDArray[np.float32]


def read_blocks(content: bytes, block_seconds: float, max_seconds: float, rate: int = RATE) -> Iterator[Samples]:
    """Yield mono samples from -1 to 1 at `rate` Hz, in blocks of about `block_seconds`.

    A block may be up to _SEARCH_SECONDS shorter, because it is cut where the audio is quiet. The last block
    may be shorter still.

    Raises InvalidRequest if no audio can be decoded, or if the audio is longer than `max_seconds` or its sample rate is
    below _MIN_RATE.
    """
    waiting: list[Samples] = []
    length = total = 0
    for samples in _decode(content, max_seconds, rate):
        waiting.append(samples)
        length, total = length + len(samples), total + len(samples)
        if total > max_seconds * rate:
            raise _too_long(max_seconds)
        if length >= block_seconds * rate:
            block = np.concatenate(waiting)
            cut = quietest(block, _SEARCH_SECONDS, rate)
            yield block[:cut]
            waiting, length = [block[cut:]], len(block) - cut
    if not total:
        raise InvalidRequest("The file contains no audio", "file", "invalid_audio")
    yield np.concatenate(waiting)


def _decode(content: bytes, max_seconds: float, rate: int) -> Iterator[Samples]:
    """Yield the samples of each frame. Packets that cannot be decoded are skipped.

    After any other FFmpeg error, no more samples are yielded. If none have been yielded yet, raises InvalidRequest.
    """
    any_yet = False
    try:
        with av.open(io.BytesIO(content), metadata_errors="ignore", options=_OPTIONS) as container:
            if not container.streams.audio:
                raise InvalidRequest("The file has no audio track", "file", "invalid_audio")
            duration = container.duration if container.format.name not in _ESTIMATED else None
            if duration and duration / av.time_base > max_seconds:
                raise _too_long(max_seconds)
            for resampled in _to_mono(_resample(_frames(container), rate)):
                any_yet = True
                yield resampled
    except av.error.FFmpegError as error:
        if not any_yet:
            message = f"The file is damaged or not supported audio: {error.strerror}"
            raise InvalidRequest(message, "file", "invalid_audio") from error


def _frames(container: Any) -> Iterator[Any]:
    for packet in container.demux(audio=0):
        with contextlib.suppress(av.error.InvalidDataError):
            yield from packet.decode()


def _resample(frames: Iterator[Any], rate: int) -> Iterator[Any]:
    """Yield frames of 16-bit samples at `rate` Hz: stereo frames stay stereo, all others become mono.

    The sample format, channels and rate of `frames` may change midway.
    """
    resampler, kind = None, None
    for frame in frames:
        if frame.sample_rate < _MIN_RATE:
            message = f"The audio's sample rate is {frame.sample_rate} Hz; the minimum is {_MIN_RATE} Hz"
            raise InvalidRequest(message, "file", "invalid_audio")
        if (frame.format.name, frame.layout.name, frame.sample_rate) != kind:
            if resampler:
                yield from resampler.resample(None)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            layout = "stereo" if len(frame.layout.channels) == 2 else "mono"
            resampler = av.AudioResampler(format="s16", layout=layout, rate=rate)
        assert resampler is not None  # noqa: S101
        yield from resampler.resample(frame)
    if resampler:
        yield from resampler.resample(None)  # samples that the resampler still buffers


def _to_mono(frames: Iterator[Any]) -> Iterator[Samples]:
    """Yield the samples of each frame, mixed to one channel.

    The mix is the mean of the channels, or half of their difference while that is far louder: one channel is then the
    inverse of the other, and the mean would be almost silent.
    """
    mean_energy = difference_energy = 0.0
    for frame in frames:
        samples = frame.to_ndarray().reshape(-1).astype(np.float32) / 32768
        if len(frame.layout.channels) == 1:
            yield samples
            continue
        left, right = samples[::2], samples[1::2]
        mean, difference = (left + right) / 2, (left - right) / 2
        mean_energy = mean_energy * _MEMORY + float(np.square(mean).sum())
        difference_energy = difference_energy * _MEMORY + float(np.square(difference).sum())
        yield difference if difference_energy > _OUT_OF_PHASE * mean_energy else mean


def quietest(block: Samples, seconds: float, rate: int = RATE) -> int:
    """Return the index to cut at: the middle of the quietest interval of _QUIET_SECONDS in the last `seconds`."""
    width = int(_QUIET_SECONDS * rate)
    start = max(len(block) - int(seconds * rate), 0)
    count = (len(block) - start) // width
    loudness = np.square(block[start : start + count * width]).reshape(count, width).sum(axis=1)
    # Of equally quiet intervals, take the last one, so that silence is not cut into small blocks.
    return start + (count - 1 - int(loudness[::-1].argmin())) * width + width // 2


def _too_long(max_seconds: float) -> InvalidRequest:
    return InvalidRequest(f"The audio exceeds this model's limit of {max_seconds:.0f} seconds", "file", "too_long")
