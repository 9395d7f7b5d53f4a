"""Reference audio: recordings of voices to clone."""

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps

from backends.common.audio.decoding import RATE, read_blocks
from backends.common.errors import InvalidRequest
from backends.speech.engines import Samples

# A file whose header states a longer duration is rejected.
_MAX_SECONDS = 600

_MIN_SPEECH_SECONDS = 0.3


def read_reference(content: bytes, rate: int, seconds: float, *, whole: bool = False) -> Samples:
    """Return the first `seconds` of an encoded file as mono samples at a sample rate.

    Raises InvalidRequest if the file is invalid, if it has no speech, or, with `whole`, if it is longer.
    """
    # Twice the length is requested, because a block may be up to 20 seconds shorter than requested.
    samples = next(read_blocks(content, 2 * seconds + 20, _MAX_SECONDS, rate))
    if whole and len(samples) > seconds * rate:
        raise InvalidRequest(f"The reference audio is longer than {seconds:g} seconds", "file", "invalid_audio")
    samples = samples[: round(seconds * rate)]
    if not _has_speech(samples if rate == RATE else next(read_blocks(content, 2 * seconds + 20, _MAX_SECONDS))):
        raise InvalidRequest("The reference audio has no speech", "file", "invalid_audio")
    return samples


def _has_speech(samples: Samples) -> bool:
    level = float(np.abs(samples).max(initial=0))
    if not np.isfinite(level) or not level:
        return False
    pieces = get_speech_timestamps(samples / level * np.float32(0.5), VadOptions(min_silence_duration_ms=500))
    return bool(sum(piece["end"] - piece["start"] for piece in pieces) >= _MIN_SPEECH_SECONDS * RATE)
