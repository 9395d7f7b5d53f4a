"""Triton's Python backend for text in pictures: an encoded picture in, a response a line out."""

import json
from collections.abc import Iterator
from typing import Any

import triton_python_backend_utils as pb_utils

from backends.common.model_config import load_model_config
from backends.common.stepwise import StepwiseModel
from backends.common.triton import number, read_strings, string
from backends.ocr.read_text import Limits, Part, read_text
from backends.ocr.text_recognizer import TextRecognizer


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args)
        self._recognizer = TextRecognizer(folder, parameters)
        self._limits = Limits(
            max_pixels=int(parameters["max_pixels"]),
            max_side=int(parameters["max_side"]),
            min_score=float(parameters["min_score"]),
            batch_size=int(parameters["batch_size"]),
        )
        self.start(int(parameters["queue_size"]), int(parameters["parallel"]))

    def responses(self, request: Any) -> Iterator[Any]:
        (content,) = read_strings(request, "image")
        return _work(read_text(self._recognizer, content, self._limits))


def _work(steps: Iterator[Part | None]) -> Iterator[Any]:
    characters = 0
    for part in steps:
        if part is not None:
            characters += len(part.text)
        yield part and _response(part)
    yield _response(Part(), number("num_output_tokens", characters))


def _response(part: Part, *more: Any) -> Any:
    boxes = json.dumps(part.boxes, ensure_ascii=False)
    return pb_utils.InferenceResponse([string("text_output", part.text), string("boxes", boxes), *more])
