"""Whisper on faster-whisper (CTranslate2): one block of samples at a time, segments as they are decoded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio.decoding import Samples
from faster_whisper import WhisperModel

# Codes that callers use → those of models that lack them.
_NEAREST = {"fil": "tl", "yue": "zh"}

# Tried one after the other while an answer repeats itself or is improbable, as OpenAI's Whisper does.
_FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Options:
    """What a caller asks for."""

    language: str | None = None
    prompt: str | None = None
    task: str = "transcribe"
    temperature: float = 0.0
    word_timestamps: bool = False
    vad: bool = True


class Whisper:
    """One model. `transcribe` is for one thread at a time; it uses all cores."""

    def __init__(self, folder: Path, parameters: Mapping[str, str]):
        self._model = WhisperModel(
            str(folder),
            device=parameters["device"].lower(),
            compute_type=parameters["compute_type"],
            cpu_threads=int(parameters["threads"]),
            local_files_only=True,
        )
        self._beam_size = int(parameters["beam_size"])

    def transcribe(self, samples: Samples, options: Options) -> tuple[Iterator[Any], str]:
        """Return the segments of a block, to be decoded as they are asked for, and the language's code."""
        segments, info = self._model.transcribe(
            samples,
            language=self._code(options.language),
            initial_prompt=options.prompt or None,
            task=options.task,
            temperature=options.temperature or _FALLBACK,
            beam_size=self._beam_size,
            word_timestamps=options.word_timestamps,
            vad_filter=options.vad,
        )
        return iter(segments), options.language or info.language

    def _code(self, language: str | None) -> str | None:
        """Return the code that the model has a token for."""
        if language and self._model.hf_tokenizer.token_to_id(f"<|{language}|>") is None:
            return _NEAREST.get(language)
        return language
