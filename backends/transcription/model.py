"""Triton Python backend for transcription: reads an encoded audio file, and sends one response per segment."""

import json
from collections.abc import Iterator
from typing import Any

from backends.common.stepwise import StepwiseModel
from backends.common.triton import load_model_config, read_strings, response
from backends.transcription.engines import load_engine
from backends.transcription.transcriber import Transcriber
from contract.options import TranscriptionOptions
from contract.parameters import TranscriptionParameters
from contract.tensors import TRANSCRIPTION


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, self._parameters = load_model_config(args, TranscriptionParameters)
        self._engine = load_engine(folder, self._parameters)
        self.start(self._parameters.queue_size)

    def responses(self, request: Any) -> Iterator[Any]:
        options = TranscriptionOptions.from_json(read_strings(request, "options")[0])
        (content,) = read_strings(request, "audio")
        limits = self._parameters.block_seconds, self._parameters.max_seconds
        return _work(Transcriber(self._engine, content, options, *limits, self.is_only_request))


def _work(transcriber: Transcriber) -> Iterator[Any]:
    for segment in transcriber.segments():
        yield _response(segment["text"], [segment]) if segment else None
    yield _response("", [], language=transcriber.language, duration=transcriber.duration)


def _response(text: str, segments: list[dict[str, Any]], **last: Any) -> Any:
    content = json.dumps(segments, ensure_ascii=False)
    return response(TRANSCRIPTION, text_output=text, segments=content, **last)
