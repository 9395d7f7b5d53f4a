"""Splits a tall image into pages that suit the OCR networks, and turns sideways or upside-down pages upright."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.common.images.decoding import on_contrasting
from backends.ocr.text_recognizer import DetectedText, Pixels, Quads, TextRecognizer

# An image taller than _MAX_PAGE_RATIO times its width, such as a screenshot of a long web page, is split into pages if
# its height exceeds the size limit: scaling the whole image down would make its text too small to read. The maximum
# height of a page is _MAX_PAGE_RATIO times its width or the size limit, whichever is more. A page ends at the emptiest
# row within the last part of this maximum height; _CUT_RANGE is that part as a fraction of the maximum height.
_MAX_PAGE_RATIO, _CUT_RANGE = 2.0, 0.25
_MAX_PAGES = 50

# If the longer side of a page is more than this many times its shorter side, a margin extends the shorter side, so that
# the ratio is at most this number. The detection network scales a short side up to a minimum. Without the margin, the
# longer side would then become so long that detection is slow.
_MAX_SIDE_RATIO = 4

# A piece of text that is at least this many times taller than wide counts as sideways.
_TALL = 1.5


@dataclass(frozen=True)
class Sheet:
    """An image scaled down to the size limit.

    `scale` is the ratio of the original size to the size of `pixels`; `width` and `height` are the original size.
    """

    pixels: Pixels
    scale: float
    width: int
    height: int

    def to_original(self, quads: Quads) -> Quads:
        """Convert positions on the sheet to positions in the original image, clipped to its edges."""
        original: Quads = np.clip(quads * self.scale, 0, (self.width, self.height)).astype(np.float32)
        return original


@dataclass(frozen=True)
class Page:
    """The pieces of text on a page, found after the page was turned upright.

    `quads` are their positions on the upright page, `sheet_quads` their positions on the sheet, which is not turned.
    """

    quads: Quads
    sheet_quads: Quads
    pieces: list[Pixels]


def lay_out(picture: Image.Image, max_side: int) -> Sheet:
    """Return an image scaled down so that its longer side is at most `max_side`.

    An image so tall that it may be split into pages is scaled down only so that its width is at most `max_side`. Raises
    InvalidRequest if the image could have more than _MAX_PAGES pages.
    """
    width, height = picture.size
    is_long = height > _MAX_PAGE_RATIO * width
    scale = max((width if is_long else max(width, height)) / max_side, 1.0)
    max_height = int(_MAX_PAGES * max_side * (1 - _CUT_RANGE) * scale)
    if height > max_height:
        message = f"The image of {width} × {height} pixels is too tall (limit {max_height:,} pixels at this width)"
        raise InvalidRequest(message, "image", "too_large")
    if scale > 1:
        size = max(round(width / scale), 1), max(round(height / scale), 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    pixels: Pixels = cv2.cvtColor(np.asarray(on_contrasting(picture)), cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    return Sheet(pixels, scale, width, height)


def pages(sheet: Pixels, max_side: int) -> Iterator[tuple[int, Pixels]]:
    """Yield the pages of a sheet from top to bottom, each as the index of its first row in the sheet and its pixels."""
    height, width = sheet.shape[:2]
    maximum = max(max_side, int(_MAX_PAGE_RATIO * width))
    begin = 0
    while height - begin > maximum:
        first = begin + round(maximum * (1 - _CUT_RANGE))
        end = first + _emptiest(sheet[first : begin + maximum])
        yield begin, _with_margin(sheet[begin:end])
        begin = end
    yield begin, _with_margin(sheet[begin:])


def _with_margin(page: Pixels) -> Pixels:
    height, width = page.shape[:2]
    below, beside = max(width // _MAX_SIDE_RATIO - height, 0), max(height // _MAX_SIDE_RATIO - width, 0)
    if not below + beside:
        return page
    color = np.median(page.reshape(-1, 3), axis=0).tolist()
    return np.asarray(cv2.copyMakeBorder(page, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=color), np.uint8)


def _emptiest(strip: Pixels) -> int:
    """Return the index of the row for which that row and its neighbors have the least contrast."""
    gray: NDArray[np.float32] = strip.mean(2, dtype=np.float32)
    busy = cv2.blur(np.ptp(gray, axis=1).reshape(-1, 1), (1, 9))
    return int(busy.argmin())


def find_text(recognizer: TextRecognizer, page: Pixels, begin: int) -> Page:
    """Turn a page upright and return the pieces of text on it. The page begins at row `begin` of the sheet."""
    turns, found = 0, recognizer.find(page)
    if sum(map(_is_tall, found.quads)) * 2 > len(found.quads):
        turns, found = _find_turned(recognizer, page, 1, found, turns)
    if recognizer.is_upside_down(found.pieces):
        turns, found = _find_turned(recognizer, page, turns + 2, found, turns)
    return _page(found, turns, page, begin)


def _find_turned(
    recognizer: TextRecognizer, page: Pixels, turns: int, before: DetectedText, turns_before: int
) -> tuple[int, DetectedText]:
    """Return `turns` and the text that is found after turning the page by this many quarter turns to the left.

    If no text is found, return `turns_before` and `before`, the previous result.
    """
    found = recognizer.find(np.ascontiguousarray(np.rot90(page, turns)))
    return (turns, found) if found.pieces else (turns_before, before)


def _page(found: DetectedText, turns: int, page: Pixels, begin: int) -> Page:
    height, width = page.shape[:2]
    sheet_quads = found.quads.copy()
    for turn in reversed(range(turns)):  # each quarter turn to the left mapped (x, y) to (y, width - x)
        before = width if turn % 2 == 0 else height
        sheet_quads = np.stack([before - sheet_quads[..., 1], sheet_quads[..., 0]], axis=-1)
    sheet_quads[..., 1] += begin
    return Page(found.quads, sheet_quads, found.pieces)


def _is_tall(quad: Quads) -> bool:
    width, height = (float(np.hypot(*(quad[0] - quad[corner]))) for corner in (1, 3))
    return height >= _TALL * width
