"""Triton Python backend for OCR: accepts an encoded image, and sends a response for each line of text."""

import json
from collections.abc import Iterator
from typing import Any

from backends.common.stepwise import StepwiseModel
from backends.common.triton import load_model_config, read_strings, response
from backends.ocr.read_text import Part, read_text
from backends.ocr.text_recognizer import TextRecognizer
from contract.parameters import OCRParameters
from contract.tensors import OCR


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, self._parameters = load_model_config(args, OCRParameters)
        self._recognizer = TextRecognizer(folder, self._parameters)
        self.start(self._parameters.queue_size, self._parameters.parallel)

    def responses(self, request: Any) -> Iterator[Any]:
        (content,) = read_strings(request, "image")
        return _work(read_text(self._recognizer, content, self._parameters))


def _work(steps: Iterator[Part | None]) -> Iterator[Any]:
    characters = 0
    for part in steps:
        if part is not None:
            characters += len(part.text)
        yield part and _response(part)
    yield _response(Part(), num_output_tokens=characters)


def _response(part: Part, **last: Any) -> Any:
    return response(OCR, text_output=part.text, boxes=json.dumps(part.boxes, ensure_ascii=False), **last)
