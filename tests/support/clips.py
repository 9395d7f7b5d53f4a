"""A short excerpt of a long recording, which is quicker to transcribe than the whole recording."""

import wave
from pathlib import Path

from tests.support.recordings import MOONSHINE, package_files


def first_seconds(seconds: int = 8) -> Path:
    """Return the path of a WAV file with the first `seconds` seconds of the recording of A Tale of Two Cities."""
    folder = package_files(MOONSHINE)
    target = folder / f"two_cities-{seconds}s.wav"
    if not target.exists():
        with wave.open(str(folder / "two_cities.wav")) as whole, wave.open(str(target), "wb") as part:
            part.setparams(whole.getparams())
            part.writeframes(whole.readframes(seconds * whole.getframerate()))
    return target
