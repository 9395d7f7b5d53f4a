"""What a picture is made on: its size, and for an edit the image below and the mask of what is to change."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.common.images.decoding import read_image

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Of a side: no format of a picture takes many more, and no model was taught on any as long.
_LONGEST = 8192

# From here on a value of a mask counts as more than none.
_HALF = 128


@dataclass(frozen=True)
class Limits:
    """What sizes a model takes."""

    step: int
    """Sides of what it paints are multiples of it."""
    max_pixels: int
    """Of a picture it paints."""
    max_input_pixels: int
    """Of an image that it is given."""


@dataclass(frozen=True)
class Canvas:
    """Pixels are [height, width, 3]. The model paints on sides rounded up to multiples of `step`."""

    width: int
    height: int
    step: int
    image: Pixels | None = None
    mask: Mask | None = None
    """True where the image may change."""

    @property
    def painted_width(self) -> int:
        return _round_up(self.width, self.step)

    @property
    def painted_height(self) -> int:
        return _round_up(self.height, self.step)

    def padded_image(self) -> Pixels:
        """Return the image at the size that is painted: its last row and column go on to the edge."""
        assert self.image is not None  # noqa: S101
        return np.pad(self.image, (*self._padding(), (0, 0)), "edge")

    def padded_mask(self) -> Pixels:
        """Return the mask at the size that is painted, 255 where to change, in squares of 8 pixels.

        The model works on such squares: one that is masked in part has to be painted as a whole.
        """
        assert self.mask is not None  # noqa: S101
        padded = np.pad(self.mask, self._padding(), "edge")
        squares = padded.reshape(self.painted_height // 8, 8, self.painted_width // 8, 8).any((1, 3))
        return np.kron(squares, np.full((8, 8), 255, np.uint8)).astype(np.uint8)

    def finish(self, painted: Pixels) -> Image.Image:
        """Return the picture, with what is not masked as it was."""
        picture = painted[: self.height, : self.width]
        if self.image is not None and self.mask is not None:
            picture = np.where(self.mask[..., None], picture, self.image)
        return Image.fromarray(picture)

    def _padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, self.painted_height - self.height), (0, self.painted_width - self.width)


def blank_canvas(size: tuple[int, int], limits: Limits) -> Canvas:
    """Return one with nothing on it. Raises InvalidRequest."""
    _check_size(size, limits)
    return Canvas(*size, limits.step)


def canvas_of(image: bytes, mask: bytes | None, size: tuple[int, int] | None, limits: Limits) -> Canvas:
    """Return one of an encoded image, stretched to `size`; without it at its own, made smaller if it is too large.

    The mask says what is to change: where it is transparent, as OpenAI has it; if nothing of it is transparent, where
    it is white, as diffusers has it. Without a mask the image's own transparency is it. Raises InvalidRequest.
    """
    if size:
        _check_size(size, limits)
    picture = read_image(image, limits.max_input_pixels)
    changes = _read_mask(mask, picture.size, limits) if mask is not None else _transparent(picture)
    size = size or _fitting(picture.size, limits)
    color = picture.convert("RGB")
    if color.size != size:
        color = color.resize(size, Image.Resampling.LANCZOS)
        changes = changes and changes.resize(size, Image.Resampling.BOX)  # what is masked in part is masked
    return Canvas(*size, limits.step, np.asarray(color), np.asarray(changes) > 0 if changes else None)


def _read_mask(content: bytes, size: tuple[int, int], limits: Limits) -> Image.Image:
    mask = read_image(content, limits.max_input_pixels, "mask")
    if mask.size != size:
        message = f"The mask has {mask.width} × {mask.height} pixels and the image {size[0]} × {size[1]}"
        raise InvalidRequest(message, "mask")
    changes = _transparent(mask) or mask.convert("L").point(lambda value: 255 * (value >= _HALF))
    if not changes.getbbox():
        raise InvalidRequest("The mask has nothing transparent, nor anything white: nothing would change", "mask")
    return changes


def _transparent(picture: Image.Image) -> Image.Image | None:
    """Return a mask of what is more transparent than not, None if nothing is."""
    if picture.mode != "RGBA":
        return None
    mask = picture.getchannel("A").point(lambda value: 255 * (value < _HALF))
    return mask if mask.getbbox() else None


def _fitting(size: tuple[int, int], limits: Limits) -> tuple[int, int]:
    """Return the size made smaller, in proportion, until the model can paint it; the slimmest out of it."""
    short, long = sorted(size)
    if long <= _LONGEST and _round_up(short, limits.step) * _round_up(long, limits.step) <= limits.max_pixels:
        return size
    smaller = min((limits.max_pixels / (short * long)) ** 0.5, _LONGEST / long, 1.0)
    # Down to a multiple where it has to be made smaller: rounding up could go beyond the limit.
    short = max(int(short * smaller) // limits.step, 1) * limits.step
    long = min(int(long * smaller), limits.max_pixels // short) // limits.step * limits.step
    return (short, long) if size[0] < size[1] else (long, short)


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if min(size) < limits.step or width % limits.step or height % limits.step:
        raise InvalidRequest(f"Width and height have to be multiples of {limits.step}, not {width}x{height}", "size")
    if max(size) > _LONGEST:
        raise InvalidRequest(f"Width and height are {_LONGEST} at most, not {width}x{height}", "size", "too_large")
    if width * height > limits.max_pixels:
        message = f"{width}x{height} are {width * height} pixels; this model makes {limits.max_pixels} at most"
        raise InvalidRequest(message, "size", "too_large")


def _round_up(side: int, step: int) -> int:
    return -(-side // step) * step
