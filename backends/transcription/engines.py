"""Which engines there are, what each must do, and what passes between them and the requests."""

import importlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from backends.common.audio.decoding import Samples
from contract.options import TranscriptionOptions
from contract.parameters import TranscriptionParameters

# A model's parameter `engine` → module and class. Imported when wanted: a process has one of them.
_ENGINES = {
    "ctranslate2": ("backends.transcription.ctranslate2_engine", "CTranslate2Engine"),
    "openvino": ("backends.transcription.openvino_engine", "OpenVINOEngine"),
}

_FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures tried one after the other while an answer repeats itself or is improbable, as OpenAI's Whisper does."""

REPETITIVE = 2.4
"""The compression ratio of a text that repeats itself."""

# Codes that callers use → those of models that lack them.
_NEAREST = {"fil": "tl", "yue": "zh"}


class Word(NamedTuple):
    """Times in seconds."""

    word: str
    start: float
    end: float


class Segment(NamedTuple):
    """Something said; times in seconds. The probabilities are None where an engine does not tell them."""

    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    compression_ratio: float
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    words: list[Word] | None = None


class Decoded(NamedTuple):
    """What is said in one window."""

    segments: list[Segment]
    language: str


class TranscriptionEngine(Protocol):
    """A model that transcribes, for one thread at a time."""

    batch_size: int
    """How many windows it decodes at once with a gain."""
    uses_previous_text: bool
    """Whether the text before a window, as its prompt, does it good."""

    def decode(self, windows: Sequence[Samples], options: TranscriptionOptions) -> Iterator[Decoded | None]:
        """Yield what is said in each window of at most 30 seconds, in order; None at the end of a step in between.

        `options.language` None: it is found out. Several windows are only given together with a language.
        """
        ...


def load_engine(folder: Path, parameters: TranscriptionParameters) -> TranscriptionEngine:
    """Return the engine that the model's configuration names, with the weights in `folder`."""
    module, name = _ENGINES[parameters.engine]
    made: Any = getattr(importlib.import_module(module), name)
    engine: TranscriptionEngine = made(folder, parameters)
    return engine


def nearest(language: str | None, known: frozenset[str]) -> str | None:
    """Return the code that a model has for a language; None where it has none, or none was given."""
    return language if language in known else next((c for c in [_NEAREST.get(language or "")] if c in known), None)


def compression_ratio(text: str) -> float:
    """Return how much smaller a text can be made: a lot, if it repeats itself."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


def temperatures(options: TranscriptionOptions) -> tuple[float, ...]:
    """Return the temperatures to sample with, one after the other."""
    return (options.temperature,) if options.temperature else _FALLBACK
