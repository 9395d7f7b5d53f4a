"""Triton's Python backend for diffusion: a prompt in, and perhaps an image and a mask; a response a picture out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.common.model_config import load_model_config
from backends.common.stepwise import StepwiseModel
from backends.common.triton import has_input, number, read_options, read_strings, string
from backends.diffusion.canvas import Limits
from backends.diffusion.image_request import DiffusionDefaults, ImageRequest, Options, Picture
from backends.diffusion.pipelines import Pipelines


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args)
        self._pipelines = Pipelines(folder, parameters)
        self._defaults = DiffusionDefaults.of(parameters)
        maximum, max_input = int(parameters["max_pixels"]), int(parameters["max_input_pixels"])
        self._limits = Limits(self._pipelines.step, maximum, max_input)
        # The pipelines share their memory: one picture at a time, and requests take turns picture by picture.
        self._pool = ThreadPoolExecutor(1, "paint")
        capacity = int(parameters["queue_size"])
        # A request's thread mostly waits for the one above.
        self.start(capacity, threads=capacity)

    def finalize(self) -> None:
        self._pipelines.close()
        super().finalize()
        self._pool.shutdown(cancel_futures=True)

    def responses(self, request: Any) -> Iterator[Any]:
        options = Options(**read_options(request))
        prompt = read_strings(request, "prompt")[0].decode()
        image, mask = (
            read_strings(request, name)[0] if has_input(request, name) else None for name in ("image", "mask")
        )
        image_request = ImageRequest(
            self._pipelines, self._pool, self._defaults, self._limits, prompt, options, image, mask
        )
        return _work(image_request, prompt)


def _work(image_request: ImageRequest, prompt: str) -> Iterator[Any]:
    for picture in image_request.pictures():
        yield picture and pb_utils.InferenceResponse(_tensors(picture, image_request, prompt))


def _tensors(picture: Picture, image_request: ImageRequest, prompt: str) -> list[Any]:
    tensors = [
        pb_utils.Tensor("image_output", np.frombuffer(picture.content, np.uint8)),
        number("index", picture.index),
    ]
    if picture.preview is not None:
        return [*tensors, number("partial", picture.preview)]
    if image_request.prompt != prompt:
        tensors.append(string("revised_prompt", image_request.prompt))
    if picture.index == image_request.n - 1:
        tensors.append(number("num_input_tokens", image_request.num_input_tokens))
    return tensors
