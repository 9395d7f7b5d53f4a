"""Pictures as a model looks at them: at a size that it takes as it is, and counted in its tokens.

The engine would scale them too, but on the thread that steps everybody's answers, in a way that fails on the slimmest,
and without telling how many tokens there will be.
"""

import abc
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from backends.common.images.decoding import on_white, read_image
from backends.generation.engine.ipc import RGBImage

# The engine refuses a side that is 200 times the other.
_LONGEST = 199


class ImageProcessor(abc.ABC):
    """What a model sees of a picture."""

    placeholder: str
    """What the model's text has in place of a picture, apart from one token for each of its parts."""
    own_tokens: int = 0
    """How many tokens of the placeholder are counted among those parts."""

    @abc.abstractmethod
    def fit(self, image: Image.Image) -> tuple[Image.Image, int]:
        """Return the picture at the size that the model takes, and its number of tokens."""

    def read(self, content: bytes, max_pixels: int, param: str) -> tuple[RGBImage, int]:
        """Decode and scale a picture; return with it how many pixels it had. Raises InvalidRequest naming `param`."""
        whole = on_white(read_image(content, max_pixels, param))
        image, tokens = self.fit(whole)
        return RGBImage(image.width, image.height, image.tobytes(), tokens), whole.width * whole.height


class QwenVLImageProcessor(ImageProcessor):
    """Qwen's: as large as the picture itself, up to `max_tokens` square cells, each of them a token."""

    placeholder = "<|vision_start|><|vision_end|>"

    def __init__(self, preprocessor: dict[str, Any], max_tokens: int):
        self._cell = preprocessor["patch_size"] * preprocessor["merge_size"]
        size = preprocessor.get("size", {})
        minimum = preprocessor.get("min_pixels") or size["shortest_edge"]
        maximum = preprocessor.get("max_pixels") or size["longest_edge"]
        self._minimum = math.ceil(minimum / self._cell**2)
        self._maximum = max(min(maximum // self._cell**2, max_tokens), self._minimum)

    def fit(self, image: Image.Image) -> tuple[Image.Image, int]:
        columns, rows = self.cells(image.width / self._cell, image.height / self._cell)
        size = (columns * self._cell, rows * self._cell)
        return image.resize(size, Image.Resampling.BICUBIC), columns * rows

    def cells(self, width: float, height: float) -> tuple[int, int]:
        """Return columns and rows for a picture of so many cells, as Qwen's processor does, but for the slimmest."""
        columns, rows = max(round(width), 1), max(round(height), 1)
        if columns * rows > self._maximum:
            shrink = math.sqrt(self._maximum / (width * height))
            columns, rows = max(math.floor(width * shrink), 1), max(math.floor(height * shrink), 1)
        elif columns * rows < self._minimum:
            grow = math.sqrt(self._minimum / (width * height))
            columns, rows = math.ceil(width * grow), math.ceil(height * grow)
        short = min(columns, rows)
        longest = min(self._maximum // short, _LONGEST * short)
        return min(columns, longest), min(rows, longest)


class LlavaImageProcessor(ImageProcessor):
    """LLaVA's: the middle of the picture, at one size."""

    placeholder, own_tokens = "<image>\n", 1

    def __init__(self, preprocessor: dict[str, Any], tokens: int):
        self._size = (preprocessor["crop_size"]["width"], preprocessor["crop_size"]["height"])
        self._tokens = tokens

    def fit(self, image: Image.Image) -> tuple[Image.Image, int]:
        return ImageOps.fit(image, self._size, Image.Resampling.BICUBIC), self._tokens


def load_image_processor(folder: Path, max_image_tokens: int) -> ImageProcessor | None:
    """Return how the model in `folder` sees; None if it does not. Raises ValueError for a kind not known here."""
    if not (folder / "openvino_vision_embeddings_model.xml").exists():
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    if config["model_type"] in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        return QwenVLImageProcessor(preprocessor, max_image_tokens)
    if config["model_type"] == "llava":
        return LlavaImageProcessor(preprocessor, config["image_seq_length"])
    raise ValueError(f"images for models of type {config['model_type']} are not supported")
