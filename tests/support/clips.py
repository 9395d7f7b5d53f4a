"""Short excerpts of long recordings, which are quick to transcribe."""

import wave
from pathlib import Path

from tests.support.recordings import MOONSHINE, package_files


def first_seconds(seconds: int = 8) -> Path:
    """Return a file with the first `seconds` of A Tale of Two Cities, next to the full recording."""
    folder = package_files(MOONSHINE)
    target = folder / f"two_cities-{seconds}s.wav"
    if not target.exists():
        with wave.open(str(folder / "two_cities.wav")) as whole, wave.open(str(target), "wb") as part:
            part.setparams(whole.getparams())
            part.writeframes(whole.readframes(seconds * whole.getframerate()))
    return target
