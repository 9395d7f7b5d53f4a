"""Image decoding: formats, modes, orientation, decompression bombs and invalid files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from backends.common.errors import InvalidRequest
from backends.common.images.decoding import on_contrasting, read_image

LEFT_RED = np.zeros((20, 30, 3), np.uint8)
LEFT_RED[:, :15, 0] = 255
LEFT_RED[:, 15:, 2] = 255


def encoded(image, image_format="PNG", **options):
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def read(content, max_pixels=1_000_000):
    return read_image(content, max_pixels)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_supported_formats_are_read(image_format):
    image = read(encoded(Image.fromarray(LEFT_RED), image_format))
    assert (image.mode, image.size) == ("RGB", (30, 20))
    red, _, blue = image.getpixel((2, 10))
    assert red > 200
    assert blue < 50


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "YCbCr"])
def test_color_modes_become_rgb(mode):
    image_format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert read(encoded(Image.fromarray(LEFT_RED).convert(mode), image_format)).mode == "RGB"


def test_only_the_exact_transparent_value_of_16_bit_gray_becomes_transparent():
    gray = np.array([[0x8000, 0x8001], [0, 0xFFFF]], np.uint16)
    content = io.BytesIO()
    Image.fromarray(gray).save(content, "PNG", transparency=0x8000)
    assert np.asarray(read_image(content.getvalue(), 10**8))[..., 3].tolist() == [[0, 255], [255, 255]]


def test_16_bit_gray_is_scaled_and_not_clipped():
    gray = np.full((4, 4), 0x8000, np.uint16)
    assert read(encoded(Image.fromarray(gray))).getpixel((0, 0)) == (128, 128, 128)


def test_alpha_is_kept_only_if_a_pixel_is_not_opaque():
    image = Image.fromarray(LEFT_RED).convert("RGBA")
    assert read(encoded(image)).mode == "RGB"
    image.putpixel((0, 0), (0, 0, 0, 0))
    assert read(encoded(image)).mode == "RGBA"


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90° clockwise for display
    image = read(encoded(Image.fromarray(LEFT_RED), "JPEG", exif=exif))
    assert image.size == (20, 30)
    assert image.getpixel((10, 2))[0] > 200


def test_only_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue")]
    image = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image.getpixel((1, 1)) == (255, 0, 0)


def bomb(width, height):
    """Return a PNG whose header claims this size in pixels, with only 1,000 bytes of pixel data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_image_with_too_many_pixels_is_rejected_before_decoding():
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
def test_invalid_truncated_or_unsupported_file_is_rejected(content):
    with pytest.raises(InvalidRequest) as caught:
        read(content)
    assert (caught.value.param, caught.value.code) == ("image", "invalid_image")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_with_swapped_primaries():
    """Return an ICC profile like sRGB, but with red and blue exchanged."""
    content = bytearray(SRGB)
    tags = {bytes(content[o : o + 4]): o for o in range(132, 132 + 12 * struct.unpack(">I", content[128:132])[0], 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    content[red : red + 4], content[blue : blue + 4] = content[blue : blue + 4], content[red : red + 4]
    start, size = struct.unpack(">II", content[tags[b"desc"] + 4 : tags[b"desc"] + 12])
    description = content[start : start + size].replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    content[start : start + size] = description
    return bytes(content)


SWAPPED = profile_with_swapped_primaries()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_colors_are_converted_to_srgb_and_the_profile_is_removed(mode, image_format):
    picture = Image.new("RGB", (20, 20), (204, 0, 0)).convert(mode)
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = read(encoded(picture, image_format, icc_profile=SWAPPED, **options))
    assert image.getpixel((5, 5))[:3] == pytest.approx((0, 0, 204), abs=3)
    assert "icc_profile" not in image.info


def test_transparency_is_kept_when_colors_are_converted():
    picture = Image.new("RGBA", (20, 20), (204, 0, 0, 100))
    assert read(encoded(picture, icc_profile=SWAPPED)).getpixel((5, 5)) == pytest.approx((0, 0, 204, 100), abs=3)


def test_color_image_with_a_gray_profile_stays_in_color():
    for mode in ("RGB", "RGBA", "P"):
        picture = Image.new("RGB", (20, 20), (204, 0, 0)).convert(mode)
        assert read(encoded(picture, icc_profile=SRGB[:16] + b"GRAY" + SRGB[20:])).getpixel((5, 5))[:3] == (204, 0, 0)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1", "LA"])
@pytest.mark.parametrize("space", [b"GRAY", b"CMYK", b"RGB ", b"Lab ", None])
def test_profile_of_other_colors_or_a_damaged_profile_is_removed(mode, space):
    picture = Image.new("RGB", (20, 20), (200, 30, 10)).convert(mode)
    profile = b"damaged" if space is None else SRGB[:16] + space + SRGB[20:]
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    plain = read(encoded(picture, image_format))
    image = read(encoded(picture, image_format, icc_profile=profile))
    assert image.getpixel((5, 5)) == pytest.approx(plain.getpixel((5, 5)), abs=2)
    assert "icc_profile" not in image.info


@pytest.mark.parametrize(
    ("color", "background"), [((255, 255, 255), 0), ((210, 210, 210), 0), ((0, 0, 0), 255), ((90, 20, 20), 255)]
)
def test_visible_areas_contrast_with_the_background(color, background):
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((*color, 255), (5, 5, 10, 10))
    image = on_contrasting(read(encoded(picture)))
    assert (image.mode, image.getpixel((0, 0)), image.getpixel((7, 7))) == ("RGB", (background,) * 3, color)
