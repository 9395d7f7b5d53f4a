"""From an encoded picture to pixels: upright, its first frame, never more of them than allowed."""

import io
import logging

import numpy as np
from PIL import Image, ImageOps

from backends.common.errors import InvalidRequest

log = logging.getLogger(__name__)

# Formats of pictures alone: none that has a program run, or opens another file.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# The size is looked at here, before a pixel is read.
Image.MAX_IMAGE_PIXELS = None


def read_image(content: bytes, max_pixels: int, param: str = "image") -> Image.Image:
    """Return a picture as RGB, or as RGBA if some of it is transparent. Raises InvalidRequest naming `param`."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                message = f"The image has {width} × {height} pixels, and {max_pixels} are taken at most"
                raise InvalidRequest(message, param, "too_large")
            image.load()
            return _plain(ImageOps.exif_transpose(image))
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's readers raise many kinds
        log.info("not read as an image: %r", error)
        raise InvalidRequest("The file is not an image, or is damaged", param, "invalid_image") from error


def on_white(image: Image.Image) -> Image.Image:
    """Return a picture as RGB: over white where it is transparent, as a browser shows it."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _plain(image: Image.Image) -> Image.Image:
    """Return 8 bits of red, green and blue, with alpha where there is any."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8), "L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba if np.asarray(rgba.getchannel("A")).min() < 255 else rgba.convert("RGB")
    return image.convert("RGB")
