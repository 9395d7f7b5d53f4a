"""The engine for speech recognizers that are language models, on OpenVINO GenAI: Qwen3-ASR and Fun-ASR."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino_genai

from backends.common.audio.decoding import RATE, Samples
from backends.transcription.engines import (
    MAX_COMPRESSION_RATIO,
    Segment,
    WindowTranscript,
    closest_language,
    compression_ratio,
    temperatures,
)
from backends.transcription.language_models import FAMILIES, max_tokens, plain_prompt, spaced
from contract.languages import language_code
from contract.options import TranscriptionOptions
from contract.parameters import TranscriptionParameters

# The pipeline pads shorter audio in another way than the original.
_MIN_SECONDS = 1.0


class OpenVINOASREngine:
    """A speech recognizer in OpenVINO's format."""

    batch_size = 1
    uses_previous_text = False
    has_times = False
    can_translate = False

    def __init__(self, folder: Path, parameters: TranscriptionParameters):
        self._pipeline = openvino_genai.ASRPipeline(
            folder,
            parameters.device,
            INFERENCE_PRECISION_HINT=parameters.precision,
            INFERENCE_NUM_THREADS=parameters.threads,
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        self._family = FAMILIES[parameters.family]
        self.languages = frozenset(self._family.languages)

    def decode(self, windows: Sequence[Samples], options: TranscriptionOptions) -> Iterator[WindowTranscript | None]:
        for window in windows:
            seconds, language = len(window) / RATE, closest_language(options.language, self.languages)
            missing = max(0, round(_MIN_SECONDS * RATE) - len(window))
            samples = np.pad(window, (0, missing)).astype(np.float32)
            for temperature in temperatures(options):
                result = self._generate(samples, seconds, language, options.prompt or "", temperature)
                text = result.texts[0].strip()
                ratio = compression_ratio(text)
                if ratio <= MAX_COMPRESSION_RATIO:
                    break
                yield None
            found = language_code(result.languages[0]) or ""
            tokens = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist() if text else []
            segments = [Segment(0.0, seconds, spaced(text), tokens, temperature, ratio)] if text else []
            yield WindowTranscript(segments, options.language or (found if found in self.languages else ""))

    def _generate(self, samples: Samples, seconds: float, language: str | None, prompt: str, temperature: float) -> Any:
        config = self._pipeline.get_generation_config()
        config.max_new_tokens = max_tokens(seconds)  # otherwise, a text that repeats itself would never end
        config.do_sample, config.temperature = temperature > 0, temperature or 1.0
        if language:
            config.language = self._family.languages[language]
        if context := plain_prompt(prompt):
            config.context = context
        return self._pipeline.generate(samples, config)
