"""Which engines there are, and what each must do."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.parameters import SpeechParameters

Samples = NDArray[np.float32]

# A model's parameter `engine` → module and class. Imported when wanted: not all their packages are always there.
_ENGINES = {
    "hibari": ("backends.speech.hibari_engine", "HibariEngine"),
    "kokoro": ("backends.speech.kokoro_engine", "KokoroEngine"),
    "pocket-tts": ("backends.speech.pocket_tts_engine", "PocketTTSEngine"),
}


class Voice(Protocol):
    """Somebody who speaks."""

    def phonemes(self, text: str) -> Iterator[str]:
        """Yield what is to be said, piece by piece."""
        ...

    def speak(self, phonemes: str, speed: float) -> Samples:
        """Return mono samples from -1 to 1 of one piece."""
        ...


class SpeechEngine(Protocol):
    """A model that speaks. Its methods may be called from several threads at once."""

    rate: int
    """Samples a second."""
    hop: int
    """Samples of one step of the model."""
    speeds: tuple[float, float]
    """The slowest and the fastest that it speaks by itself, 1 being normal."""

    def voice(self, name: str | None, reference: bytes | None) -> Voice:
        """Return the voice of this name (None: the default), or the one heard in an encoded file.

        Raises InvalidRequest.
        """
        ...


def load_engine(folder: Path, parameters: SpeechParameters) -> SpeechEngine:
    """Return the engine that the model's configuration names, with the weights in `folder`."""
    module, name = _ENGINES[parameters.engine]
    made: Any = getattr(importlib.import_module(module), name)
    engine: SpeechEngine = made(folder, parameters)
    return engine
