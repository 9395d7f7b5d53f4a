"""Triton's Python backend for transcription: encoded files in, a response a segment out."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Triton imports this file by path; its neighbours are the package of this folder's name.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocol.loading import begin
from protocol.stepwise import StepwiseModel
from protocol.tensors import read_options, read_strings, string
from transcription.engines import Options, load_engine
from transcription.jobs import Job


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = begin(args)
        self._engine = load_engine(folder, parameters)
        self._block_seconds, self._most_seconds = float(parameters["block_seconds"]), float(parameters["most_seconds"])
        self.start(int(parameters["queue_size"]))

    def responses(self, request: Any) -> Iterator[Any]:
        options = Options(**read_options(request))
        (content,) = read_strings(request, "audio")
        return _work(Job(self._engine, content, options, self._block_seconds, self._most_seconds, self.is_alone))


def _work(job: Job) -> Iterator[Any]:
    for segment in job.segments():
        yield _response(segment["text"], [segment]) if segment else None
    duration = pb_utils.Tensor("duration", np.array([job.duration], np.float32))
    yield _response("", [], string("language", job.language), duration)


def _response(text: str, segments: list[dict[str, Any]], *more: Any) -> Any:
    tensors = [string("text_output", text), string("segments", json.dumps(segments, ensure_ascii=False)), *more]
    return pb_utils.InferenceResponse(tensors)
