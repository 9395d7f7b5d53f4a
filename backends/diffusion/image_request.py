"""Generates the images of one request, one at a time."""

import queue
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from backends.common.errors import EngineDown, InvalidRequest
from backends.common.images.encoding import write_image
from backends.diffusion.canvas import Canvas, Limits, Pixels, blank_canvas, edit_canvas
from backends.diffusion.pipelines import SEEDS, ImageParameters, Latent, Pipelines
from contract.options import ImageGenerationOptions
from contract.parameters import DiffusionParameters

# Seconds between the yields of a waiting request. At each yield, the scheduler checks whether the client has cancelled
# the request.
_POLL_SECONDS = 0.1

# Held while a request decodes its image and mask. They may be large, and each queued request has its own thread, so
# decoding the files of several requests at once could take too much memory.
_DECODE_LOCK = threading.Lock()


@dataclass(frozen=True)
class GeneratedImage:
    """A final image, or a preview of a final image, encoded. `index` is the index of the final image in the request.

    `preview` is the index of the preview among the previews of the final image, or None for the final image itself.
    """

    content: bytes
    index: int
    preview: int | None = None


class ImageRequest:
    """A request for images. It runs in steps (see backends/common/stepwise.py): a step ends each time
    `images()` yields.

    `pool` has a single thread, which generates the images of all requests.
    """

    def __init__(
        self,
        pipelines: Pipelines,
        pool: Executor,
        defaults: DiffusionParameters,
        limits: Limits,
        prompt: str,
        options: ImageGenerationOptions,
        image: bytes | None = None,
        mask: bytes | None = None,
    ):
        self._pipelines, self._pool, self._options = pipelines, pool, options
        self._defaults, self._limits = defaults, limits
        self._files: tuple[bytes | None, bytes | None] = (image, mask)
        self.prompt, self.num_input_tokens = prompt, 0
        """The prompt and its number of tokens. Before `images()` starts, the prompt is untruncated and the number 0."""
        self.n = options.n

    def images(self) -> Iterator[GeneratedImage | None]:
        """Yield each image after its previews, and None while waiting for an image or preview.

        Raises InvalidRequest if a parameter or a file is invalid, or EngineDown if the model is unloaded during the
        generation.
        """
        options = self._options
        self.prompt, self.num_input_tokens = self._pipelines.truncate_prompt(self.prompt)
        parameters = _image_parameters(self._defaults, self.prompt, options, self._canvas())
        if self._pipelines.is_inpainting_only and parameters.canvas.mask is None:
            raise InvalidRequest(
                "This model only supports inpainting; use /v1/images/edits with a 'mask' or a partly transparent image"
            )
        parameters = replace(parameters, negative_prompt=self._negative_prompt(parameters))
        seed = secrets.randbelow(SEEDS) if options.seed is None else options.seed
        for index in range(self.n):
            yield from self._generate(parameters, index, seed + index)

    def _canvas(self) -> Canvas:
        """Return the canvas, and release the encoded files so that they do not stay in memory."""
        (image, mask), self._files = self._files, (None, None)
        if image is None:
            return blank_canvas(self._options.size or self._pipelines.size, self._limits)
        with _DECODE_LOCK:
            return edit_canvas(image, mask, self._options.size, self._limits)

    def _negative_prompt(self, parameters: ImageParameters) -> str | None:
        if not parameters.negative_prompt:
            return None
        if not self._pipelines.supports_negative_prompt:
            raise InvalidRequest("This model does not support 'negative_prompt'", "negative_prompt")
        if parameters.guidance <= 1:
            raise InvalidRequest("'negative_prompt' requires a 'guidance_scale' above 1", "negative_prompt")
        return self._pipelines.truncate_prompt(parameters.negative_prompt)[0]

    def _generate(self, parameters: ImageParameters, index: int, seed: int) -> Iterator[GeneratedImage | None]:
        """Yield the previews of an image, then the image.

        Closing the iterator stops the generation after the current denoising step.
        """
        events: queue.SimpleQueue[Latent | None] = queue.SimpleQueue()
        cancelled = False

        def on_step(step: int, steps: int, latent: object) -> bool:
            if step in _preview_steps(self._options.partial_images, steps):
                events.put(np.array(latent.data))  # type: ignore[attr-defined]
            return cancelled

        task = self._pool.submit(self._pipelines.generate, parameters, seed, on_step)
        task.add_done_callback(lambda _: events.put(None))
        try:
            yield from self._previews(events, parameters.canvas, index)
        finally:
            cancelled = True
            task.cancel()
        if (generated := task.result()) is None:
            raise EngineDown("The model is being unloaded")
        yield self._encode(parameters.canvas, generated, index)

    def _previews(
        self, events: "queue.SimpleQueue[Latent | None]", canvas: Canvas, index: int
    ) -> Iterator[GeneratedImage | None]:
        shown = 0
        while True:
            try:
                latent = events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if latent is None:
                return
            yield self._encode(canvas, self._pipelines.preview(latent, canvas), index, shown)
            shown += 1

    def _encode(self, canvas: Canvas, generated: Pixels, index: int, preview: int | None = None) -> GeneratedImage:
        content = write_image(canvas.finish(generated), self._options.format, self._options.compression)
        return GeneratedImage(content, index, preview)


def _preview_steps(previews: int, steps: int) -> set[int]:
    """Return the indexes of the steps after which a preview is sent: evenly spread, without the last step.

    There are `previews` of them, or fewer if `steps` is too low.
    """
    return {index * steps // (previews + 1) - 1 for index in range(1, previews + 1)} - {-1}


def _image_parameters(
    defaults: DiffusionParameters, prompt: str, options: ImageGenerationOptions, canvas: Canvas
) -> ImageParameters:
    """Return the parameters of a request; the model's defaults replace omitted options.

    Raises InvalidRequest if the number of steps is not in the allowed range.
    """
    steps, guidance, strength = options.num_inference_steps, options.guidance_scale, options.strength
    if strength is None:  # a masked area is generated from scratch
        strength = defaults.strength if canvas.mask is None else 1.0
    if steps is None:
        steps = defaults.steps_hd if options.quality == "hd" else defaults.steps_standard
    if not 1 <= steps <= defaults.max_steps:
        raise InvalidRequest(f"'num_inference_steps' must be from 1 to {defaults.max_steps}", "num_inference_steps")
    if guidance is None:
        guidance = defaults.guidance_natural if options.style == "natural" else defaults.guidance_vivid
    return ImageParameters(prompt, canvas, steps, guidance, strength, options.negative_prompt)
