"""Decodes the first frame of an image file, and rotates it according to its EXIF data.

Images with too many pixels are rejected.
"""

import io
import logging

import numpy as np
from PIL import Image, ImageCms, ImageOps

from backends.common.errors import InvalidRequest

log = logging.getLogger(__name__)

# Formats whose decoders neither run another program nor open another file.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# Visible areas with a mean lightness above this, of 255, are light.
_LIGHT = 160

# Turns off Pillow's own size limit, because read_image checks the size before it decodes any pixel.
Image.MAX_IMAGE_PIXELS = None


def read_image(content: bytes, max_pixels: int, param: str = "image") -> Image.Image:
    """Return the image as RGB, or as RGBA if any pixel is not opaque, with its colors in sRGB.

    Raises InvalidRequest naming `param` if the image cannot be decoded or has more than `max_pixels` pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                message = f"The image of {width} × {height} pixels exceeds the limit of {max_pixels:,} pixels"
                raise InvalidRequest(message, param, "too_large")
            image.load()
            return _plain(_in_srgb(ImageOps.exif_transpose(image)))
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
    return _on(image, "white")


def on_contrasting(image: Image.Image) -> Image.Image:
    """Return an image from read_image as RGB, on white, or on black if its visible areas are light.

    Light text on a transparent background would be invisible on white.
    """
    if image.mode != "RGBA":
        return image
    light, weight = np.asarray(image.convert("L"), np.float32), np.asarray(image.getchannel("A"), np.float32)
    total = float(weight.sum())
    is_light = total > 0 and float((light * weight).sum()) / total > _LIGHT
    return _on(image, "black" if is_light else "white")


def _on(image: Image.Image, color: str) -> Image.Image:
    if image.mode != "RGBA":
        return image
    background = Image.new("RGB", image.size, color)
    background.paste(image, mask=image.getchannel("A"))
    return background


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return the image with its colors converted from its ICC profile, if any, to sRGB; the profile is removed.

    A profile that is damaged or belongs to other colors is ignored.
    """
    content = image.info.pop("icc_profile", None)
    if not content:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        space = str(profile.profile.xcolor_space).strip()
        if "sRGB" in ImageCms.getProfileDescription(profile) and space == "RGB":
            return image
        return _converted(image, profile, space)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.info("ignoring an ICC profile: %r", error)
        return image


def _has_gray_palette(image: Image.Image) -> bool:
    colors = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((np.ptp(colors, axis=1) == 0).all())


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile, space: str) -> Image.Image:
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    is_gray = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
    if mode is None or image.mode.startswith("I") or (mode == "CMYK") != (image.mode == "CMYK"):
        return image
    is_gray = is_gray or (image.mode == "P" and mode == "L" and _has_gray_palette(image))
    if is_gray != (mode == "L"):
        return image  # a profile of other colors than the image's
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image.convert(mode), profile, srgb, outputMode="RGB")
    assert converted is not None  # noqa: S101 - None only if the image is converted in place
    converted.info.pop("icc_profile", None)
    if alpha:
        converted.putalpha(alpha)
    return converted


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
