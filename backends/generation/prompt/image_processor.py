"""Scales images to sizes that a vision model accepts unchanged, and counts their tokens.

The engine could scale the images too. But its scaling blocks the thread that steps all requests, fails on very narrow
images, and does not report the number of tokens.
"""

import abc
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from backends.common.images.decoding import on_white, read_image
from backends.generation.engine.ipc import RGBImage

# The engine requires an aspect ratio smaller than 200.
_MAX_ASPECT_RATIO = 199


class ImageProcessor(abc.ABC):
    """Scales images for one family of vision models, and counts their tokens."""

    placeholder: str
    """The text that stands for an image while the tokens of the prompt are counted.

    The number of the image's own tokens, which `fit` returns, is added to that count.
    """
    placeholder_tokens: int = 0
    """How many of the placeholder's tokens are already included in the number that `fit` returns."""

    @abc.abstractmethod
    def fit(self, image: Image.Image) -> tuple[Image.Image, int]:
        """Return the image at a size that the model accepts, and its number of tokens."""

    def read(self, content: bytes, max_pixels: int, param: str) -> tuple[RGBImage, int]:
        """Decode and scale an image. Return the scaled image and the pixel count of the original.

        Raises InvalidRequest naming `param` if the image cannot be decoded or has more than `max_pixels` pixels.
        """
        whole = on_white(read_image(content, max_pixels, param))
        image, tokens = self.fit(whole)
        return RGBImage(image.width, image.height, image.tobytes(), tokens), whole.width * whole.height


class QwenVLImageProcessor(ImageProcessor):
    """Processor for Qwen-VL models, which divide an image into square cells of one token each.

    The processor rounds an image's size to whole cells. It scales an image down if it has more cells than `max_tokens`
    or the model's own maximum, and up if it has fewer than the model's minimum.
    """

    placeholder = "<|vision_start|><|vision_end|>"

    def __init__(self, preprocessor: dict[str, Any], max_tokens: int):
        self._cell = preprocessor["patch_size"] * preprocessor["merge_size"]
        size = preprocessor.get("size", {})
        minimum = preprocessor.get("min_pixels") or size["shortest_edge"]
        maximum = preprocessor.get("max_pixels") or size["longest_edge"]
        self._minimum = math.ceil(minimum / self._cell**2)
        self._maximum = max(min(maximum // self._cell**2, max_tokens), self._minimum)

    def fit(self, image: Image.Image) -> tuple[Image.Image, int]:
        columns, rows = self.grid_size(image.width / self._cell, image.height / self._cell)
        size = (columns * self._cell, rows * self._cell)
        return image.resize(size, Image.Resampling.BICUBIC), columns * rows

    def grid_size(self, width: float, height: float) -> tuple[int, int]:
        """Return the number of columns and rows for an image whose width and height are given in cells.

        Except for very narrow images, the result is the same as that of Qwen's own processor.
        """
        columns, rows = max(round(width), 1), max(round(height), 1)
        if columns * rows > self._maximum:
            shrink = math.sqrt(self._maximum / (width * height))
            columns, rows = max(math.floor(width * shrink), 1), max(math.floor(height * shrink), 1)
        elif columns * rows < self._minimum:
            grow = math.sqrt(self._minimum / (width * height))
            columns, rows = math.ceil(width * grow), math.ceil(height * grow)
        short = min(columns, rows)
        longest = min(self._maximum // short, _MAX_ASPECT_RATIO * short)
        return min(columns, longest), min(rows, longest)


class LlavaImageProcessor(ImageProcessor):
    """Processor for LLaVA models, which scales and center-crops every image to a fixed size."""

    placeholder, placeholder_tokens = "<image>\n", 1

    def __init__(self, preprocessor: dict[str, Any], tokens: int):
        self._size = (preprocessor["crop_size"]["width"], preprocessor["crop_size"]["height"])
        self._tokens = tokens

    def fit(self, image: Image.Image) -> tuple[Image.Image, int]:
        return ImageOps.fit(image, self._size, Image.Resampling.BICUBIC), self._tokens


def load_image_processor(folder: Path, max_image_tokens: int) -> ImageProcessor | None:
    """Return the image processor for the model in `folder`, or None if the model does not accept images.

    Raises ValueError if images are not supported for the model's type.
    """
    if not (folder / "openvino_vision_embeddings_model.xml").exists():
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    if config["model_type"] in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        return QwenVLImageProcessor(preprocessor, max_image_tokens)
    if config["model_type"] == "llava":
        return LlavaImageProcessor(preprocessor, config["image_seq_length"])
    raise ValueError(f"images for models of type {config['model_type']} are not supported")
