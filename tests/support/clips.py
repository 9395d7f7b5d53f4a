"""Short pieces of long recordings: quick to transcribe."""

import wave
from pathlib import Path

from tests.support.recordings import MOONSHINE, package_files


def opening(seconds: int = 8) -> Path:
    """Return the beginning of A Tale of Two Cities, as a file beside the whole."""
    folder = package_files(MOONSHINE)
    target = folder / f"two_cities-{seconds}s.wav"
    if not target.exists():
        with wave.open(str(folder / "two_cities.wav")) as whole, wave.open(str(target), "wb") as part:
            part.setparams(whole.getparams())
            part.writeframes(whole.readframes(seconds * whole.getframerate()))
    return target
