"""Background removal with a fixed mask."""

import io
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from backends.segmentation.remove_background import remove_background
from contract.options import BackgroundRemovalOptions


class FakeNetwork:
    """Returns a mask whose left half is the foreground."""

    def submit(self, picture):
        assert picture.mode == "RGB"
        mask = np.zeros((32, 32), np.float32)
        mask[:, :16] = 1
        found = Future()
        found.set_result(mask)
        return found


def photo(width=200, height=100, mode="RGB"):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (200, 30, 30)
    pixels[:, width // 2 :] = (30, 30, 200)
    image = Image.fromarray(pixels).convert(mode)
    if mode == "RGBA":
        image.putpixel((0, 0), (200, 30, 30, 7))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def cut(content, **options):
    *steps, made = remove_background(FakeNetwork(), content, BackgroundRemovalOptions(**options), 1_000_000)
    assert steps == [None, None]
    return Image.open(io.BytesIO(made))


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("form", ["png", "webp"])
def test_the_background_becomes_transparent_and_the_foreground_and_size_are_kept(form, refine):
    image = cut(photo(), format=form, refine=refine)
    assert (image.format, image.mode, image.size) == (form.upper(), "RGBA", (200, 100))
    alpha = np.asarray(image)[..., 3]
    assert alpha[:, :90].min() > 240
    assert alpha[:, 110:].max() < 15
    assert np.abs(np.asarray(image)[50, 20, :3].astype(int) - (200, 30, 30)).max() < 12


def test_a_transparent_pixel_keeps_its_alpha():
    assert cut(photo(mode="RGBA")).getpixel((0, 0))[3] == 7


def test_refinement_aligns_the_edge_with_the_image():
    """A pixel of the mask covers about 7 pixels of the image's width, so the edge is soft without refinement."""
    truth = np.zeros((100, 230))
    truth[:, :115] = 255
    soft, sharp = (np.asarray(cut(photo(width=230), refine=refine))[..., 3] for refine in (False, True))
    assert np.abs(sharp - truth).mean() < 0.95 * np.abs(soft - truth).mean()
