"""Decodes the first frame of an image file, and rotates it according to its EXIF data.

Images with too many pixels are rejected.
"""

import io
import logging

import numpy as np
from PIL import Image, ImageOps

from backends.common.errors import InvalidRequest

log = logging.getLogger(__name__)

# Formats whose decoders neither run another program nor open another file.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# Turns off Pillow's own size limit, because read_image checks the size before it decodes any pixel.
Image.MAX_IMAGE_PIXELS = None


def read_image(content: bytes, max_pixels: int, param: str = "image") -> Image.Image:
    """Return the image as RGB, or as RGBA if any pixel is not opaque.

    Raises InvalidRequest naming `param` if the image cannot be decoded or has more than `max_pixels` pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                message = f"The image of {width} × {height} pixels exceeds the limit of {max_pixels:,} pixels"
                raise InvalidRequest(message, param, "too_large")
            image.load()
            return _plain(ImageOps.exif_transpose(image))
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's decoders raise many types of exception
        log.info("cannot decode the image: %r", error)
        raise InvalidRequest(
            "The file is damaged or not a supported image (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF)",
            param,
            "invalid_image",
        ) from error


def on_white(image: Image.Image) -> Image.Image:
    """Return an image from read_image as RGB, with its transparent areas on a white background, as in a browser."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _plain(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB, or as RGBA if any pixel is not opaque."""
    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip values at 255 instead of scaling them
        values, transparent = np.asarray(image).astype(np.uint32), image.info.get("transparency")
        image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8), "L")
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8), "L"))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba if np.asarray(rgba.getchannel("A")).min() < 255 else rgba.convert("RGB")
    return image.convert("RGB")
