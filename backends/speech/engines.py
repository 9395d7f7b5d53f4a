"""Which engines there are, what each must do, and which voice a name means."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.common.errors import InvalidRequest
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


class Voices:
    """Finds out which voice a name means."""

    def __init__(self, names: Iterable[str], default: str, aliases: Mapping[str, str]):
        self._names = tuple(names)
        self._aliases = aliases
        self._default = default

    def find(self, name: str | None) -> str:
        """Return a voice's own name; that of the default for None. Raises InvalidRequest with the names there are."""
        wanted = name or self._default
        found = wanted if wanted in self._names else self._aliases.get(wanted, "")
        if found not in self._names:
            known = ", ".join([*self._names, *self._aliases])
            raise InvalidRequest(f"There is no voice '{wanted}'; there are: {known}", "voice", "voice_not_found")
        return found


def cannot_clone() -> InvalidRequest:
    """Return the error for a reference that this model does not listen to."""
    message = "This model speaks with voices of its own and cannot take over the one of a reference audio"
    return InvalidRequest(message, "messages", "voice_cloning_unsupported")
