"""A picture as pages the networks can see: long ones cut up, those on their head or their side turned."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from ocr.engine import Engine, Found, Pixels, Quads

# A picture higher than so many times its width, like that of a long web page, is cut up: scaled as a whole, its text
# would be too small to read. The cut is made where there is least to see, in the last part of a page.
_LONGEST, _NARROWEST, _CUT = 2.0, 640, 0.25

# A page that is longer than so many times its shorter side gets a margin: the network scales that side up, and is slow
# with what is long.
_SLIMMEST = 4

# A piece of text that is so much higher than wide lies on its side.
_TALL = 1.5


@dataclass(frozen=True)
class Page:
    """The pieces of text of a page, upright.

    `quads` are where they are on the page as it is read; `places` where they are in the whole picture.
    """

    quads: Quads
    places: Quads
    pieces: list[Pixels]


def pages(picture: Pixels) -> Iterator[tuple[int, Pixels]]:
    """Yield the pages of a picture from the top down, and at which of its rows each begins."""
    height, width = picture.shape[:2]
    most = round(_LONGEST * max(width, _NARROWEST))
    begin = 0
    while height - begin > most:
        first = begin + round(most * (1 - _CUT))
        end = first + _emptiest(picture[first : begin + most])
        yield begin, _with_margin(picture[begin:end])
        begin = end
    yield begin, _with_margin(picture[begin:])


def _with_margin(page: Pixels) -> Pixels:
    height, width = page.shape[:2]
    below, beside = max(width // _SLIMMEST - height, 0), max(height // _SLIMMEST - width, 0)
    if not below + beside:
        return page
    color = np.median(page.reshape(-1, 3), axis=0).tolist()
    return np.asarray(cv2.copyMakeBorder(page, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=color), np.uint8)


def _emptiest(strip: Pixels) -> int:
    """Return the row around which the rows are most of one colour."""
    grey: NDArray[np.float32] = strip.mean(2, dtype=np.float32)
    busy = cv2.blur(np.ptp(grey, axis=1).reshape(-1, 1), (1, 9))
    return int(busy.argmin())


def look_at(engine: Engine, picture: Pixels, begin: int) -> Page:
    """Find the text of a page that begins at a row of the whole picture."""
    turns, found = 0, engine.find(picture)
    if sum(map(_is_tall, found.quads)) * 2 > len(found.quads):
        turns, found = 1, engine.find(_turned(picture, 1))
    if engine.upside_down(found.pieces):
        turns += 2
        found = engine.find(_turned(picture, turns))
    return _page(found, turns, picture, begin)


def _turned(picture: Pixels, turns: int) -> Pixels:
    """Return it turned to the left by so many quarters."""
    return np.ascontiguousarray(np.rot90(picture, turns))


def _page(found: Found, turns: int, picture: Pixels, begin: int) -> Page:
    height, width = picture.shape[:2]
    places = found.quads.copy()
    for turn in reversed(range(turns)):  # each quarter turn to the left took (x, y) to (y, width - x)
        before = width if turn % 2 == 0 else height
        places = np.stack([before - places[..., 1], places[..., 0]], axis=-1)
    places[..., 1] += begin
    return Page(found.quads, places, found.pieces)


def _is_tall(quad: Quads) -> bool:
    width, height = (float(np.hypot(*(quad[0] - quad[corner]))) for corner in (1, 3))
    return height >= _TALL * width
