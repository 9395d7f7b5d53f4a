"""Triton Python backend for image generation: reads a prompt and optional files, sends previews and images."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backends.common.stepwise import StepwiseModel
from backends.common.triton import has_input, load_model_config, read_strings, response
from backends.diffusion.canvas import Limits
from backends.diffusion.image_request import GeneratedImage, ImageRequest
from backends.diffusion.pipelines import Pipelines
from contract.options import ImageGenerationOptions
from contract.parameters import DiffusionParameters
from contract.tensors import IMAGE_GENERATION


class TritonPythonModel(StepwiseModel):
    def initialize(self, args: dict[str, str]) -> None:
        folder, self._parameters = load_model_config(args, DiffusionParameters)
        self._pipelines = Pipelines(folder, self._parameters)
        limits = self._parameters.max_pixels, self._parameters.max_input_pixels
        self._limits = Limits(self._pipelines.step, *limits)
        # The pipelines share their memory, so only one image is generated at a time. Requests take turns.
        self._pool = ThreadPoolExecutor(1, "generate")
        # One thread per request. Each of these threads mostly waits for the generation thread.
        self.start(self._parameters.queue_size, threads=self._parameters.queue_size)

    def finalize(self) -> None:
        self._pipelines.close()
        super().finalize()
        self._pool.shutdown(cancel_futures=True)

    def responses(self, request: Any) -> Iterator[Any]:
        options = ImageGenerationOptions.from_json(read_strings(request, "options")[0])
        prompt = read_strings(request, "prompt")[0].decode()
        files = [read_strings(request, name)[0] if has_input(request, name) else None for name in ("image", "mask")]
        engine = self._pipelines, self._pool, self._parameters, self._limits
        return _work(ImageRequest(*engine, prompt, options, *files), prompt)


def _work(image_request: ImageRequest, prompt: str) -> Iterator[Any]:
    for image in image_request.images():
        yield image and response(IMAGE_GENERATION, **_values(image, image_request, prompt))


def _values(image: GeneratedImage, image_request: ImageRequest, prompt: str) -> dict[str, Any]:
    values: dict[str, Any] = {"image_output": image.content, "index": image.index}
    if image.preview is not None:
        return values | {"partial": image.preview}
    if image_request.prompt != prompt:
        values["revised_prompt"] = image_request.prompt
    if image.index == image_request.n - 1:
        values["num_input_tokens"] = image_request.num_input_tokens
    return values
