"""Defines the interface of speech engines, loads the engine that a model needs, and resolves the names of voices."""

import importlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from backends.common.errors import InvalidRequest
from contract.options import SpeechOptions
from contract.parameters import SpeechParameters

Samples = NDArray[np.float32]

# Maps the values of a model's parameter `engine` to a module and a class. Modules are imported on demand, because an
# installation may lack the packages that some of the modules need.
_ENGINES = {
    "hibari": ("backends.speech.hibari_engine", "HibariEngine"),
    "kokoro": ("backends.speech.kokoro_engine", "KokoroEngine"),
    "pocket-tts": ("backends.speech.pocket_tts_engine", "PocketTTSEngine"),
    "voxcpm": ("backends.speech.voxcpm_engine", "VoxCPMEngine"),
}


class Voice(Protocol):
    """A voice of a speech engine."""

    def phonemes(self, text: str) -> Iterator[str]:
        """Yield the pieces of a text that are spoken in turn, as phonemes, or as plain text if the model reads text."""
        ...

    def speak(self, phonemes: str, speed: float) -> Samples:
        """Return the speech of one piece, as mono samples from -1 to 1."""
        ...


@runtime_checkable
class StreamingVoice(Voice, Protocol):
    """A voice whose pieces can be sent while they are being spoken."""

    def stream(self, phonemes: str) -> Generator[Samples, None, None]:
        """Yield the speech of one piece in parts."""
        ...


class SpeechEngine(Protocol):
    """A speech model. Several threads may use it and its voices at once."""

    rate: int
    """Samples per second."""
    hop: int
    """Samples per step of the model."""
    speeds: tuple[float, float]
    """The slowest and the fastest speed that the model itself supports; 1 is normal."""

    def voice(self, options: SpeechOptions, reference: bytes | None) -> Voice:
        """Return the voice with the name or alias in the options, or else the default voice.

        If `reference`, an encoded audio file, is given, return a voice that is cloned from that file.

        Raises InvalidRequest if there is no such voice, or if the model cannot clone voices.
        """
        ...


def load_engine(folder: Path, parameters: SpeechParameters) -> SpeechEngine:
    """Return the engine that the model's configuration names, with the weights in `folder`."""
    module, name = _ENGINES[parameters.engine]
    engine_class: Any = getattr(importlib.import_module(module), name)
    engine: SpeechEngine = engine_class(folder, parameters)
    return engine


class Voices:
    """The names of a model's voices, with their aliases and the default."""

    def __init__(self, names: Iterable[str], default: str, aliases: Mapping[str, str]):
        self._names = tuple(names)
        self._aliases = aliases
        self._default = default

    def find(self, name: str | None) -> str:
        """Return the name of the voice with this name or alias, or of the default voice if no name is given.

        Raises InvalidRequest, with a list of the known names, if there is no such voice.
        """
        wanted = name or self._default
        found = wanted if wanted in self._names else self._aliases.get(wanted, "")
        if found not in self._names:
            known = ", ".join([*self._names, *self._aliases])
            raise InvalidRequest(f"Voice '{wanted}' not found; available voices: {known}", "voice", "voice_not_found")
        return found


def cannot_clone() -> InvalidRequest:
    """Return the error for a request that sends reference audio to a model that cannot clone voices."""
    message = "This model does not support voice cloning"
    return InvalidRequest(message, "messages", "voice_cloning_unsupported")
