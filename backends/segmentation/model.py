"""Triton Python backend for background removal: returns an encoded image with an alpha channel added."""

from collections.abc import Iterator
from typing import Any

from backends.common.stepwise import StepwiseModel
from backends.common.triton import load_model_config, read_strings, response
from backends.segmentation.network import Network
from backends.segmentation.remove_background import remove_background
from contract.options import BackgroundRemovalOptions
from contract.parameters import SegmentationParameters
from contract.tensors import BACKGROUND_REMOVAL


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args, SegmentationParameters)
        self._network = Network(folder, parameters)
        self._max_pixels = parameters.max_pixels
        self.start(parameters.queue_size, parameters.parallel)

    def finalize(self) -> None:
        super().finalize()
        self._network.stop()

    def responses(self, request: Any) -> Iterator[Any]:
        options = BackgroundRemovalOptions.from_json(read_strings(request, "options")[0])
        (content,) = read_strings(request, "image")
        return _work(remove_background(self._network, content, options, self._max_pixels))


def _work(steps: Iterator[bytes | None]) -> Iterator[Any]:
    for content in steps:
        yield content and response(BACKGROUND_REMOVAL, image_output=content)
