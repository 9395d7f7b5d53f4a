"""Defines the interface of transcription engines and the types of their results, and loads the configured engine."""

import importlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from backends.common.audio.decoding import Samples
from contract.options import TranscriptionOptions
from contract.parameters import TranscriptionParameters

# A model's parameter `engine` → module and class. Modules are imported on demand: a process uses only one engine.
_ENGINES = {
    "ctranslate2": ("backends.transcription.ctranslate2_engine", "CTranslate2Engine"),
    "openvino": ("backends.transcription.openvino_engine", "OpenVINOEngine"),
    "openvino with a family": ("backends.transcription.openvino_asr_engine", "OpenVINOASREngine"),
    "llamacpp": ("backends.transcription.llamacpp_engine", "LlamaCppEngine"),
}

_FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures to try in order while the text repeats itself or is known to be improbable, as in OpenAI's Whisper."""

MAX_COMPRESSION_RATIO = 2.4
"""The compression ratio above which a text counts as repeating itself."""

# Language code of the API → the closest code, which is used if a model does not have the API's code.
_CLOSEST = {"fil": "tl", "yue": "zh"}


class Word(NamedTuple):
    """A spoken word, with times in seconds from the start of its window."""

    word: str
    start: float
    end: float


class Segment(NamedTuple):
    """A stretch of speech, with times in seconds from the start of its window.

    The probabilities are None if the engine does not report them.
    """

    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    compression_ratio: float
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    words: list[Word] | None = None


class WindowTranscript(NamedTuple):
    """The transcript of one window. `language` may be empty if it is unknown or if the request specifies it."""

    segments: list[Segment]
    language: str


class TranscriptionEngine(Protocol):
    """A transcription model. Only one thread may use it at a time."""

    batch_size: int
    """The maximum number of windows to pass to `decode` at once."""
    languages: frozenset[str]
    """The codes of the languages that the model knows."""
    uses_previous_text: bool
    """Whether the text before a window, passed as the prompt, improves the window's transcript."""
    has_times: bool
    """Whether segments and words have times. If not, a window is one segment, so windows are short."""
    can_translate: bool
    """Whether the model can translate into English."""

    def decode(self, windows: Sequence[Samples], options: TranscriptionOptions) -> Iterator[WindowTranscript | None]:
        """Yield the transcript of each window, in order, and None after each step that does not complete a window.

        A window lasts at most 30 seconds. If `options.language` is None, the engine detects the language; there must
        then be only one window.
        """
        ...


def load_engine(folder: Path, parameters: TranscriptionParameters) -> TranscriptionEngine:
    """Return the engine that the model's configuration names, with the weights in `folder`."""
    is_language_model = bool(parameters.family) and parameters.engine == "openvino"
    module, name = _ENGINES["openvino with a family" if is_language_model else parameters.engine]
    engine_class: Any = getattr(importlib.import_module(module), name)
    engine: TranscriptionEngine = engine_class(folder, parameters)
    return engine


def closest_language(language: str | None, known: frozenset[str]) -> str | None:
    """Return the model's code for a language, or None if the model has no such code or no language was given."""
    return language if language in known else next((c for c in [_CLOSEST.get(language or "")] if c in known), None)


def compression_ratio(text: str) -> float:
    """Return the compression ratio of a text. It is high if the text repeats itself."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


def temperatures(options: TranscriptionOptions) -> tuple[float, ...]:
    """Return the temperatures to try, in order."""
    return (options.temperature,) if options.temperature else _FALLBACK
