"""Pictures as they come: every mode and orientation, bombs, and what is none."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.common.images.decoding import read_image

LEFT_RED = np.zeros((20, 30, 3), np.uint8)
LEFT_RED[:, :15, 0] = 255
LEFT_RED[:, 15:, 2] = 255


def encoded(image, form="PNG", **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def read(content, maximum=1_000_000):
    return read_image(content, maximum)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(form):
    image = read(encoded(Image.fromarray(LEFT_RED), form))
    assert (image.mode, image.size) == ("RGB", (30, 20))
    red, _, blue = image.getpixel((2, 10))
    assert red > 200
    assert blue < 50


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "YCbCr"])
def test_modes(mode):
    form = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert read(encoded(Image.fromarray(LEFT_RED).convert(mode), form)).mode == "RGB"


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off():
    grey = np.full((4, 4), 0x8000, np.uint16)
    assert read(encoded(Image.fromarray(grey))).getpixel((0, 0)) == (128, 128, 128)


def test_transparency_is_kept_where_there_is_any():
    image = Image.fromarray(LEFT_RED).convert("RGBA")
    assert read(encoded(image)).mode == "RGB"
    image.putpixel((0, 0), (0, 0, 0, 0))
    assert read(encoded(image)).mode == "RGBA"


def test_orientation_of_cameras():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    image = read(encoded(Image.fromarray(LEFT_RED), "JPEG", exif=exif))
    assert image.size == (20, 30)
    assert image.getpixel((10, 2))[0] > 200


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue")]
    image = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image.getpixel((1, 1)) == (255, 0, 0)


def bomb(width, height):
    """A PNG that says it has so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_too_many_pixels_are_refused_before_they_are_read():
    with pytest.raises(InvalidRequest, match="50000 × 50000") as caught:
        read(bomb(50_000, 50_000))
    assert (caught.value.param, caught.value.code) == ("image", "too_large")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just text",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bomb(10, 10)[:40],
        encoded(Image.fromarray(LEFT_RED), "JPEG")[:400],
        encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)), "PNG")[:9000],
    ],
)
def test_what_is_no_image_or_a_part_of_one(content):
    with pytest.raises(InvalidRequest) as caught:
        read(content)
    assert (caught.value.param, caught.value.code) == ("image", "invalid_image")
