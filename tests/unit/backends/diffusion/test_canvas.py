"""Sizes of generated and edited images."""

import io

import numpy as np
import pytest
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.diffusion.canvas import Limits, blank_canvas, edit_canvas

LIMITS = Limits(8, 1 << 20, 1 << 24)


def picture(*size):
    content = io.BytesIO()
    Image.new("RGB", size, "red").save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((8, 8), "at least 64 pixels"),
        ((512, 32), "at least 64 pixels"),
        ((100, 64), "multiples of 8"),
        ((2048, 1024), "pixels"),
    ],
)
def test_unsupported_sizes_are_rejected(size, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        blank_canvas(size, LIMITS)
    assert caught.value.param == "size"


def test_a_small_picture_is_extended_to_the_minimum_and_cropped_again():
    canvas = edit_canvas(picture(24, 100), None, None, LIMITS)
    assert (canvas.padded_width, canvas.padded_height) == (64, 104)
    assert canvas.padded_image().shape == (104, 64, 3)
    assert canvas.finish(np.zeros((104, 64, 3), np.uint8)).size == (24, 100)
