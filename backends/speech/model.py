"""Triton Python backend for speech. It sends an audio file as responses, one per sentence or part of a sentence."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backends.common.errors import InvalidRequest
from backends.common.stepwise import IDLE, StepwiseModel
from backends.common.triton import has_input, load_model_config, read_strings, response
from backends.speech.engines import load_engine
from backends.speech.synthesis import SpeechSynthesis
from contract.options import SpeechOptions
from contract.parameters import SpeechParameters
from contract.tensors import SPEECH


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args, SpeechParameters)
        self._engine = load_engine(folder, parameters)
        self._max_characters, self._parallel = parameters.max_characters, parameters.parallel
        self._languages = parameters.languages.split()
        self._pool = ThreadPoolExecutor(self._parallel, "speak")
        self.start(parameters.queue_size, self._parallel)

    def responses(self, request: Any) -> Iterator[Any]:
        options = SpeechOptions.from_json(read_strings(request, "options")[0])
        text = read_strings(request, "text_input")[0].decode()
        if len(text) > self._max_characters:
            message = f"'input' exceeds the limit of {self._max_characters:,} characters: it has {len(text):,}"
            raise InvalidRequest(message, "input", "too_long")
        reference = read_strings(request, "reference_audio")[0] if has_input(request, "reference_audio") else None
        synthesis = SpeechSynthesis(self._engine, text, options, reference, self._pool, self._parallel, self._languages)
        return _work(synthesis)

    def finalize(self) -> None:
        super().finalize()
        self._pool.shutdown(cancel_futures=True)


def _work(synthesis: SpeechSynthesis) -> Iterator[Any]:
    for chunk in synthesis.chunks():
        yield chunk if chunk is IDLE else response(SPEECH, audio=chunk) if chunk else None
    counts = {name: getattr(synthesis, name) for name in ("num_input_tokens", "num_output_tokens")}
    yield response(SPEECH, audio=b"", **counts)
