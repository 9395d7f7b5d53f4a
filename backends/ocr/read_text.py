"""Reads the text of one image, line by line in reading order, with tables as Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.common.images.decoding import read_image
from backends.ocr.layout import Line, find_lines
from backends.ocr.page import find_text, lay_out, pages
from backends.ocr.text_recognizer import Pixels, Text, TextRecognizer
from contract.parameters import OCRParameters

# A piece of text whose score is lower than this is also read upside down.
_UNSURE = 0.75


@dataclass
class Part:
    """The Markdown of one line, including the newlines before the line, and a list with the line's pieces of text.

    Each piece is `{text, score, box: [[x, y], …]}`. The box has four corners, in pixels of the original image.
    """

    text: str = ""
    boxes: list[dict[str, Any]] = field(default_factory=list)


def read_text(recognizer: TextRecognizer, content: bytes, limits: OCRParameters) -> Iterator[Part | None]:
    """Yield each line that has text, and None after other steps. Raises InvalidRequest if the image is invalid."""
    sheet = lay_out(read_image(content, limits.max_pixels), limits.max_side)
    del content
    writer = _Writer()
    for begin, pixels in pages(sheet.pixels, limits.max_side):
        yield None
        page = find_text(recognizer, pixels, begin)
        original_quads = sheet.to_original(page.sheet_quads)
        yield None
        for lines in _batches(find_lines(page.quads), limits.batch_size):
            indices = [index for line in lines for cell in line.cells for index in cell]
            texts = dict(zip(indices, _read(recognizer, [page.pieces[index] for index in indices]), strict=True))
            sure = {index: text for index, text in texts.items() if _is_read(text, limits.min_score)}
            for line in lines:
                found = [index for cell in line.cells for index in cell if index in sure]
                boxes = [_box(sure[index], original_quads[index].tolist()) for index in found]
                text = writer.write(line, sure)
                yield Part(text, boxes) if found else None


def _batches(lines: Sequence[Line], size: int) -> Iterator[list[Line]]:
    batch: list[Line] = []
    count = 0
    for line in lines:
        batch.append(line)
        count += sum(map(len, line.cells))
        if count >= size:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _read(recognizer: TextRecognizer, pieces: Sequence[Pixels]) -> list[Text]:
    """Return each piece's text. If a text's score is low, also read its piece upside down and use the better text."""
    texts = recognizer.read(pieces)
    doubtful = [index for index, text in enumerate(texts) if text.score < _UNSURE]
    turned = recognizer.read([np.ascontiguousarray(pieces[index][::-1, ::-1]) for index in doubtful])
    for index, text in zip(doubtful, turned, strict=True):
        texts[index] = max(texts[index], text, key=lambda text: text.score)
    return texts


def _is_read(text: Text, min_score: float) -> bool:
    return text.score >= min_score and bool(text.text.strip())


def _box(text: Text, corners: list[list[float]]) -> dict[str, Any]:
    return {"text": text.text, "score": round(text.score, 4), "box": [[round(x), round(y)] for x, y in corners]}


class _Writer:
    """Joins lines as Markdown, with empty lines around tables and above columns."""

    def __init__(self) -> None:
        self._begun = self._in_table = False
        self._pending: bool | None = None
        """True if a table has begun but has no text yet, False if a column has begun but has no text yet, else None."""

    def write(self, line: Line, texts: dict[int, Text]) -> str:
        """Return the Markdown to append for a line, or an empty string if none of the line's pieces is in `texts`."""
        cells = [" ".join(texts[index].text.strip() for index in cell if index in texts) for cell in line.cells]
        first = line.first or self._pending == line.table
        if not any(cells):
            self._pending = line.table if first else self._pending
            return ""
        text = _table_row(cells, first) if line.table else cells[0]
        apart = first or (self._in_table and not line.table)
        above = ("\n\n" if apart else "\n") if self._begun else ""
        self._begun, self._in_table, self._pending = True, line.table, None
        return above + text


def _table_row(cells: Sequence[str], first: bool) -> str:
    row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return row + "\n|" + " --- |" * len(cells) if first else row
