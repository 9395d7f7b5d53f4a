"""Runs a diffusion model in OpenVINO GenAI's pipelines for inpainting, image-to-image and text-to-image."""

import json
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from backends.diffusion.canvas import Canvas, Pixels
from contract.parameters import DiffusionParameters

Latent = NDArray[np.float32]

StepCallback = Callable[[int, int, openvino.Tensor], bool]
"""Called after each step with its index, the number of steps and the latent; returns whether to stop."""

# Pipeline classes (`_class_name` in model_index.json) that support a negative prompt.
_WITH_NEGATIVE_PROMPT = (
    "StableDiffusionPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusion3Pipeline",
)

SEEDS = 2**32
"""The number of distinct seeds."""


@dataclass(frozen=True)
class ImageParameters:
    """The parameters of an image, except its seed.

    `strength`, up to 1, is how much an edit may change the source image.
    """

    prompt: str
    canvas: Canvas
    steps: int
    guidance: float
    strength: float
    negative_prompt: str | None = None


class Pipelines:
    """A model's pipelines, which share its weights.

    Only one `generate` may run at a time. `truncate_prompt` and `preview` may be called from any thread.
    """

    def __init__(self, folder: Path, parameters: DiffusionParameters):
        self._folder, self._device = folder, parameters.device
        self._properties = {"INFERENCE_PRECISION_HINT": parameters.precision}
        # The engine compiles and caches kernels for each image size. By default, this cache can take gigabytes.
        self._properties["CPU_RUNTIME_CACHE_CAPACITY"] = str(parameters.kernel_cache)
        if threads := parameters.threads:
            self._properties["INFERENCE_NUM_THREADS"] = str(threads)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        self.step = 16 if index["_class_name"].startswith("Flux") else 8
        self.supports_negative_prompt = index["_class_name"] in _WITH_NEGATIVE_PROMPT
        # Created in this order, the pipelines share one set of weights and the memory for generating an image.
        self._inpainting = openvino_genai.InpaintingPipeline(folder, self._device, **self._properties)
        self.is_inpainting_only = any(kind in index["_class_name"] for kind in ("Inpaint", "Fill"))
        if not self.is_inpainting_only:
            self._image = self._derived(openvino_genai.Image2ImagePipeline)
            self._text = self._derived(openvino_genai.Text2ImagePipeline)
        defaults = self._inpainting.get_generation_config()
        self.size = (defaults.width, defaults.height)
        self._limit = self._find_limit(index, defaults)
        # FLUX reads the prompt with CLIP as well, which cuts it off without the token that ends a text.
        self._clip_limit = self._clip() if self.step == 16 else None
        self._decoder: Any = None
        self._decoding = threading.Lock()
        self._closing = False

    def close(self) -> None:
        """Make `generate` stop after the current step and return None."""
        self._closing = True

    def truncate_prompt(self, prompt: str) -> tuple[str, int]:
        """Return the prompt, truncated to the token limit of the model, and its number of tokens."""
        return self._limit.truncate(prompt)

    def generate(self, parameters: ImageParameters, seed: int, callback: StepCallback) -> Pixels | None:
        """Return the image at the padded size of the canvas, [height, width, 3], or None if the generation was stopped.

        The same parameters and seed yield the same image.
        """
        canvas, guard = parameters.canvas, _Guard(lambda *step: self._closing or callback(*step))
        options: dict[str, Any] = {
            "width": canvas.padded_width,
            "height": canvas.padded_height,
            "num_inference_steps": parameters.steps,
            "guidance_scale": parameters.guidance,
            "rng_seed": seed % SEEDS,
            "callback": guard,
        }
        # Omit an empty negative prompt: without guidance, the engine fails on any negative prompt, even an empty one.
        if parameters.negative_prompt:
            options["negative_prompt"] = parameters.negative_prompt
        prompt = parameters.prompt
        if self._clip_limit:
            options["prompt_2"], prompt = prompt, self._clip_limit.truncate(prompt)[0]
        if canvas.image is None:
            result = self._text.generate(prompt, **options)
        else:
            # The engine rejects a strength that leaves no step to run.
            options["strength"] = min(max(parameters.strength, 1.001 / parameters.steps), 1.0)
            image = openvino.Tensor(canvas.padded_image()[None])
            if canvas.mask is None:
                result = self._image.generate(prompt, image, **options)
            else:
                mask = openvino.Tensor(canvas.padded_mask()[None, ..., None])
                result = self._inpainting.generate(prompt, image, mask, **options)
        if guard.error:
            raise guard.error
        # Return a copy, because the engine overwrites its own memory with the next image.
        return None if guard.stopped else np.array(result.data[0])

    def preview(self, latent: Latent, canvas: Canvas) -> Pixels:
        """Return the image that a step's latent decodes to.

        Uses a separate decoder, created on first use: using the pipelines' own decoder during a generation would
        corrupt the image being generated.
        """
        if latent.ndim == 3:
            latent = _unpack(latent, canvas.padded_width // 16)
        with self._decoding:
            if self._decoder is None:
                decoder = self._folder / "vae_decoder"
                self._decoder = openvino_genai.AutoencoderKL(decoder, self._device, **self._properties)
            return np.array(self._decoder.decode(openvino.Tensor(np.ascontiguousarray(latent))).data[0])

    def _derived(self, kind: Any) -> Any:
        pipeline = kind(self._inpainting)
        # A derived FLUX pipeline inherits everything except the scheduler, and crashes the process without one.
        pipeline.set_scheduler(openvino_genai.Scheduler.from_config(self._folder / "scheduler/scheduler_config.json"))
        return pipeline

    def _find_limit(self, index: dict[str, Any], defaults: Any) -> "_PromptLimit":
        """Return the limit of the text encoder with the highest one: T5 if present."""
        for name in ("tokenizer_2", "tokenizer_3"):
            if "T5" in str(index.get(name)):
                return _PromptLimit(openvino_genai.Tokenizer(self._folder / name), int(defaults.max_sequence_length))
        return self._clip()

    def _clip(self) -> "_PromptLimit":
        config = json.loads((self._folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        return _PromptLimit(
            openvino_genai.Tokenizer(self._folder / "tokenizer"), int(config["max_position_embeddings"])
        )


class _PromptLimit:
    """The maximum number of tokens in the prompt of a text encoder."""

    def __init__(self, tokenizer: Any, max_tokens: int):
        self._tokenizer, self._max_tokens = tokenizer, max_tokens

    def truncate(self, prompt: str) -> tuple[str, int]:
        """Return the prompt, truncated at the end of a word if possible, and its number of tokens."""
        if (count := self._count(prompt)) <= self._max_tokens:
            return prompt, count
        ends = [word.end() for word in re.finditer(r"\S+", prompt)]
        if not ends:
            return "", self._count("")
        kept = self._longest_prefix(prompt, ends) or self._longest_prefix(prompt, range(1, ends[0]))
        return kept, self._count(kept)

    def _longest_prefix(self, prompt: str, ends: Sequence[int]) -> str:
        """Return the longest prefix within the limit that ends at one of `ends`, or "" if there is none."""
        count = bisect_right(ends, self._max_tokens, key=lambda end: self._count(prompt[:end]))
        return prompt[: ends[count - 1]] if count else ""

    def _count(self, prompt: str) -> int:
        return int(self._tokenizer.encode(prompt).input_ids.shape[1])


class _Guard:
    """Wraps a callback and stores its exception: an exception that reached the engine would end the process."""

    def __init__(self, callback: StepCallback):
        self._callback = callback
        self.stopped = False
        self.error: BaseException | None = None

    def __call__(self, step: int, steps: int, latent: openvino.Tensor) -> bool:
        try:
            self.stopped = self.stopped or self._callback(step, steps, latent)
        except BaseException as error:
            self.error, self.stopped = error, True
        return self.stopped


def _unpack(latent: Latent, columns: int) -> Latent:
    """Return FLUX's latent [1, patches, channels · 4] as [1, channels, height, width].

    Each patch is a square of 2 × 2 positions, and a row has `columns` patches.
    """
    _, patches, values = latent.shape
    squares = latent.reshape(1, patches // columns, columns, values // 4, 2, 2)
    return squares.transpose(0, 3, 1, 4, 2, 5).reshape(1, values // 4, 2 * (patches // columns), 2 * columns)
