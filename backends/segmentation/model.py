"""Triton's Python backend for background removal: an encoded picture in, one with alpha out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.common.model_config import load_model_config
from backends.common.stepwise import StepwiseModel
from backends.common.triton import read_options, read_strings
from backends.segmentation.network import Network
from backends.segmentation.remove_background import Options, remove_background


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args)
        self._network = Network(folder, parameters)
        self._max_pixels = int(parameters["max_pixels"])
        self.start(int(parameters["queue_size"]), int(parameters["parallel"]))

    def finalize(self) -> None:
        super().finalize()
        self._network.stop()

    def responses(self, request: Any) -> Iterator[Any]:
        options = Options(**read_options(request))
        (content,) = read_strings(request, "image")
        return _work(remove_background(self._network, content, options, self._max_pixels))


def _work(steps: Iterator[bytes | None]) -> Iterator[Any]:
    for content in steps:
        yield content and pb_utils.InferenceResponse([_image(content)])


def _image(content: bytes) -> Any:
    return pb_utils.Tensor("image_output", np.frombuffer(content, np.uint8))
