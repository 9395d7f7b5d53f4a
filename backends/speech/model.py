"""Triton's Python backend for speech: text in, a response a sentence out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.common.errors import InvalidRequest
from backends.common.model_config import load_model_config
from backends.common.stepwise import StepwiseModel
from backends.common.triton import has_input, number, read_options, read_strings
from backends.speech.engines import load_engine
from backends.speech.synthesis import Options, SpeechSynthesis


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args)
        self._engine = load_engine(folder, parameters)
        self._max_characters = int(parameters["max_characters"])
        self._parallel = int(parameters["parallel"])
        self._pool = ThreadPoolExecutor(self._parallel, "speak")
        self.start(int(parameters["queue_size"]), self._parallel)

    def responses(self, request: Any) -> Iterator[Any]:
        options = Options(**read_options(request))
        text = read_strings(request, "text_input")[0].decode()
        if len(text) > self._max_characters:
            message = f"The text has {len(text)} characters; this model takes {self._max_characters} at most"
            raise InvalidRequest(message, "input", "too_long")
        reference = read_strings(request, "reference_audio")[0] if has_input(request, "reference_audio") else None
        return _work(SpeechSynthesis(self._engine, text, options, reference, self._pool, self._parallel))

    def finalize(self) -> None:
        super().finalize()
        self._pool.shutdown(cancel_futures=True)


def _work(synthesis: SpeechSynthesis) -> Iterator[Any]:
    for chunk in synthesis.chunks():
        yield pb_utils.InferenceResponse([_audio(chunk)]) if chunk else None
    counts = [number(name, getattr(synthesis, name)) for name in ("num_input_tokens", "num_output_tokens")]
    yield pb_utils.InferenceResponse([_audio(b""), *counts])


def _audio(content: bytes) -> Any:
    return pb_utils.Tensor("audio", np.frombuffer(content, np.uint8))
