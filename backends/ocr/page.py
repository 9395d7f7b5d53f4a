"""A picture as pages the networks can see: long ones cut up, those upside down or sideways turned."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.common.images.decoding import on_white
from backends.ocr.text_recognizer import Found, Pixels, Quads, TextRecognizer

# A picture higher than so many times its width, like that of a long web page, is cut up: scaled as a whole, its text
# would be too small to read. The cut is made where there is least to see, in the last part of a page.
_LONGEST, _CUT = 2.0, 0.25
_MAX_PAGES = 50

# A page that is longer than so many times its shorter side gets a margin: the network scales that side up, and is slow
# with what is long.
_SLIMMEST = 4

# A piece of text that is so much higher than wide lies on its side.
_TALL = 1.5


@dataclass(frozen=True)
class Sheet:
    """A picture made small enough: its pixels, and how many of its own pixels each of them was."""

    pixels: Pixels
    scale: float
    width: int
    height: int

    def places(self, quads: Quads) -> Quads:
        """Return where something on the sheet is in the picture itself, no further out than its edges."""
        places: Quads = np.clip(quads * self.scale, 0, (self.width, self.height)).astype(np.float32)
        return places


@dataclass(frozen=True)
class Page:
    """The pieces of text of a page, upright.

    `quads` are where they are on the page as it is read; `places` where they are on the whole sheet.
    """

    quads: Quads
    places: Quads
    pieces: list[Pixels]


def lay_out(picture: Image.Image, max_side: int) -> Sheet:
    """Return a picture at a size of which no network wants more. Raises InvalidRequest if it is too long."""
    width, height = picture.size
    is_long = height > _LONGEST * width
    scale = max((width if is_long else max(width, height)) / max_side, 1.0)
    if height / scale > _MAX_PAGES * max_side * (1 - _CUT):
        raise InvalidRequest(f"The image of {width} × {height} pixels is too long to be read", "image", "too_large")
    if scale > 1:
        size = max(round(width / scale), 1), max(round(height / scale), 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    pixels: Pixels = cv2.cvtColor(np.asarray(on_white(picture)), cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    return Sheet(pixels, scale, width, height)


def pages(sheet: Pixels, max_side: int) -> Iterator[tuple[int, Pixels]]:
    """Yield the pages of a sheet from the top down, and at which of its rows each begins."""
    height, width = sheet.shape[:2]
    maximum = max(max_side, int(_LONGEST * width))
    begin = 0
    while height - begin > maximum:
        first = begin + round(maximum * (1 - _CUT))
        end = first + _emptiest(sheet[first : begin + maximum])
        yield begin, _with_margin(sheet[begin:end])
        begin = end
    yield begin, _with_margin(sheet[begin:])


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


def look_at(recognizer: TextRecognizer, page: Pixels, begin: int) -> Page:
    """Find the text of a page that begins at a row of the whole sheet."""
    turns, found = 0, recognizer.find(page)
    if sum(map(_is_tall, found.quads)) * 2 > len(found.quads):
        turns, found = _turned(recognizer, page, 1, found, turns)
    if recognizer.upside_down(found.pieces):
        turns, found = _turned(recognizer, page, turns + 2, found, turns)
    return _page(found, turns, page, begin)


def _turned(
    recognizer: TextRecognizer, page: Pixels, turns: int, before: Found, turns_before: int
) -> tuple[int, Found]:
    """Look at the page turned to the left by so many quarters. If nothing is found then, that was wrong."""
    found = recognizer.find(np.ascontiguousarray(np.rot90(page, turns)))
    return (turns, found) if found.pieces else (turns_before, before)


def _page(found: Found, turns: int, page: Pixels, begin: int) -> Page:
    height, width = page.shape[:2]
    places = found.quads.copy()
    for turn in reversed(range(turns)):  # each quarter turn to the left took (x, y) to (y, width - x)
        before = width if turn % 2 == 0 else height
        places = np.stack([before - places[..., 1], places[..., 0]], axis=-1)
    places[..., 1] += begin
    return Page(found.quads, places, found.pieces)


def _is_tall(quad: Quads) -> bool:
    width, height = (float(np.hypot(*(quad[0] - quad[corner]))) for corner in (1, 3))
    return height >= _TALL * width
