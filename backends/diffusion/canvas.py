"""The size of an image to generate and, for an edit, its source image and inpainting mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.common.images.decoding import read_image

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Minimum pixels per side. After a smaller image, the engine's cached kernels would spoil all later ones.
_MIN_SIDE = 64

# Maximum pixels per side of a generated image. It exceeds the image size that any supported model was trained with, and
# is less than WebP's maximum of 16,383.
_MAX_SIDE = 8192

# A mask pixel counts as white if its value is at least this threshold (of 255). A pixel counts as transparent if its
# alpha value is less than the threshold.
_HALF = 128


@dataclass(frozen=True)
class Limits:
    """The image sizes that a model supports."""

    step: int
    """The model generates images whose sides are multiples of this many pixels."""
    max_pixels: int
    """Maximum pixels (width × height) of a generated image."""
    max_input_pixels: int
    """Maximum pixels (width × height) of an input image or mask."""


@dataclass(frozen=True)
class Canvas:
    """The size of the result and, for an edit, the source image [height, width, 3] and the mask [height, width].

    The model works at the padded size: each side rounded up to a multiple of `step`, and to the minimum.
    """

    width: int
    height: int
    step: int
    image: Pixels | None = None
    mask: Mask | None = None
    """True where the image may change."""

    @property
    def padded_width(self) -> int:
        return max(_round_up(self.width, self.step), _MIN_SIDE)

    @property
    def padded_height(self) -> int:
        return max(_round_up(self.height, self.step), _MIN_SIDE)

    def padded_image(self) -> Pixels:
        """Return the source image, extended to the padded size by repeating its last row and column."""
        assert self.image is not None  # noqa: S101
        return np.pad(self.image, (*self._padding(), (0, 0)), "edge")

    def padded_mask(self) -> Pixels:
        """Return the mask at the padded size, widened to whole squares of 8 × 8 pixels: 255 where the image may change.

        The model's latent has one position per square, so a partly masked square is regenerated as a whole.
        """
        assert self.mask is not None  # noqa: S101
        padded = np.pad(self.mask, self._padding(), "edge")
        squares = padded.reshape(self.padded_height // 8, 8, self.padded_width // 8, 8).any((1, 3))
        return np.kron(squares, np.full((8, 8), 255, np.uint8)).astype(np.uint8)

    def finish(self, generated: Pixels) -> Image.Image:
        """Return the generated image, cropped to the canvas size. Pixels that a mask protects keep their color."""
        picture = generated[: self.height, : self.width]
        if self.image is not None and self.mask is not None:
            picture = np.where(self.mask[..., None], picture, self.image)
        return Image.fromarray(picture)

    def _padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, self.padded_height - self.height), (0, self.padded_width - self.width)


def blank_canvas(size: tuple[int, int], limits: Limits) -> Canvas:
    """Return a canvas without a source image. Raises InvalidRequest for an unsupported size."""
    _check_size(size, limits)
    return Canvas(*size, limits.step)


def edit_canvas(image: bytes, mask: bytes | None, size: tuple[int, int] | None, limits: Limits) -> Canvas:
    """Return a canvas with the decoded image.

    If `size` is given, the image is stretched to it. Otherwise, an image that exceeds the limits is scaled down.

    Where the mask is transparent, the image may change, as in OpenAI's API. If the mask has no transparent area, the
    image may change where the mask is white, as in diffusers. Without a mask, the transparent area of the image itself
    may change, or the whole image if it has no transparent area. Raises InvalidRequest if the image, the mask or the
    size is invalid.
    """
    if size:
        _check_size(size, limits)
    picture = read_image(image, limits.max_input_pixels)
    changes = _read_mask(mask, picture.size, limits) if mask is not None else _transparent(picture)
    size = size or _scaled_down(picture.size, limits)
    color = picture.convert("RGB")
    if color.size != size:
        color = color.resize(size, Image.Resampling.LANCZOS)
        changes = changes and changes.resize(size, Image.Resampling.BOX)  # a partly masked pixel counts as masked
    return Canvas(*size, limits.step, np.asarray(color), np.asarray(changes) > 0 if changes else None)


def _read_mask(content: bytes, size: tuple[int, int], limits: Limits) -> Image.Image:
    mask = read_image(content, limits.max_input_pixels, "mask")
    if mask.size != size:
        message = f"'mask' must have the size of the image, {size[0]}x{size[1]}, not {mask.width}x{mask.height}"
        raise InvalidRequest(message, "mask")
    changes = _transparent(mask) or mask.convert("L").point(lambda value: 255 * (value >= _HALF))
    if not changes.getbbox():
        raise InvalidRequest("'mask' has no transparent and no white area, so nothing would change", "mask")
    return changes


def _transparent(picture: Image.Image) -> Image.Image | None:
    """Return a mask of the pixels that are more transparent than opaque, or None if there are none."""
    if picture.mode != "RGBA":
        return None
    mask = picture.getchannel("A").point(lambda value: 255 * (value < _HALF))
    return mask if mask.getbbox() else None


def _scaled_down(size: tuple[int, int], limits: Limits) -> tuple[int, int]:
    """Return the size, scaled down if it exceeds the limits.

    The aspect ratio is kept approximately, unless the image is very narrow.
    """
    short, long = sorted(size)
    if long <= _MAX_SIDE and _round_up(short, limits.step) * _round_up(long, limits.step) <= limits.max_pixels:
        return size
    scale = min((limits.max_pixels / (short * long)) ** 0.5, _MAX_SIDE / long, 1.0)
    # Round down to multiples of the step: rounding up could exceed the limits.
    short = max(int(short * scale) // limits.step, 1) * limits.step
    long = min(int(long * scale), limits.max_pixels // short) // limits.step * limits.step
    return (short, long) if size[0] < size[1] else (long, short)


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if min(size) < _MIN_SIDE:
        raise InvalidRequest(f"'size' must have sides of at least {_MIN_SIDE} pixels, not {width}x{height}", "size")
    if width % limits.step or height % limits.step:
        raise InvalidRequest(
            f"'size' must have sides that are multiples of {limits.step}, not {width}x{height}", "size"
        )
    if max(size) > _MAX_SIDE:
        raise InvalidRequest(
            f"'size' must have sides of at most {_MAX_SIDE} pixels, not {width}x{height}", "size", "too_large"
        )
    if width * height > limits.max_pixels:
        message = (
            f"'size' must be at most {limits.max_pixels:,} pixels in total, not {width * height:,} ({width}x{height})"
        )
        raise InvalidRequest(message, "size", "too_large")


def _round_up(side: int, step: int) -> int:
    return -(-side // step) * step
