"""Triton's Python backend for transcription: encoded files in, a response a segment out."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.common.model_config import load_model_config
from backends.common.stepwise import StepwiseModel
from backends.common.triton import read_options, read_strings, string
from backends.transcription.engines import Options, load_engine
from backends.transcription.transcriber import Transcriber


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args)
        self._engine = load_engine(folder, parameters)
        self._block_seconds, self._max_seconds = float(parameters["block_seconds"]), float(parameters["max_seconds"])
        self.start(int(parameters["queue_size"]))

    def responses(self, request: Any) -> Iterator[Any]:
        options = Options(**read_options(request))
        (content,) = read_strings(request, "audio")
        return _work(Transcriber(self._engine, content, options, self._block_seconds, self._max_seconds, self.is_alone))


def _work(transcriber: Transcriber) -> Iterator[Any]:
    for segment in transcriber.segments():
        yield _response(segment["text"], [segment]) if segment else None
    duration = pb_utils.Tensor("duration", np.array([transcriber.duration], np.float32))
    yield _response("", [], string("language", transcriber.language), duration)


def _response(text: str, segments: list[dict[str, Any]], *more: Any) -> Any:
    tensors = [string("text_output", text), string("segments", json.dumps(segments, ensure_ascii=False)), *more]
    return pb_utils.InferenceResponse(tensors)
