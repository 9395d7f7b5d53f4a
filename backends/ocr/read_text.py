"""One picture: its text, line by line in the order of reading, tables as Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.common.images.decoding import read_image
from backends.ocr.layout import Line, find_lines
from backends.ocr.page import lay_out, look_at, pages
from backends.ocr.text_recognizer import Pixels, Text, TextRecognizer
from contract.parameters import OCRParameters

# What is read less surely than this is tried the other way up.
_UNSURE = 0.75


@dataclass
class Part:
    """A line of the text, and its pieces: `{text, score, box: [[x, y], …]}`, corners in pixels."""

    text: str = ""
    boxes: list[dict[str, Any]] = field(default_factory=list)


def read_text(recognizer: TextRecognizer, content: bytes, limits: OCRParameters) -> Iterator[Part | None]:
    """Yield each line as it is read, and None at the end of a step without one. Raises InvalidRequest."""
    sheet = lay_out(read_image(content, limits.max_pixels), limits.max_side)
    del content
    writer = _Writer()
    for begin, pixels in pages(sheet.pixels, limits.max_side):
        yield None
        page = look_at(recognizer, pixels, begin)
        places = sheet.places(page.places)
        yield None
        for lines in _batches(find_lines(page.quads), limits.batch_size):
            numbers = [number for line in lines for cell in line.cells for number in cell]
            texts = dict(zip(numbers, _read(recognizer, [page.pieces[number] for number in numbers]), strict=True))
            sure = {number: text for number, text in texts.items() if _is_read(text, limits.min_score)}
            for line in lines:
                said = [number for cell in line.cells for number in cell if number in sure]
                boxes = [_box(sure[number], places[number].tolist()) for number in said]
                text = writer.write(line, sure)
                yield Part(text, boxes) if said else None


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
    """Read pieces of a page. One that makes little sense may stand on its head: the surer way is right."""
    texts = recognizer.read(pieces)
    doubtful = [place for place, text in enumerate(texts) if text.score < _UNSURE]
    turned = recognizer.read([np.ascontiguousarray(pieces[place][::-1, ::-1]) for place in doubtful])
    for place, text in zip(doubtful, turned, strict=True):
        texts[place] = max(texts[place], text, key=lambda text: text.score)
    return texts


def _is_read(text: Text, min_score: float) -> bool:
    return text.score >= min_score and bool(text.text.strip())


def _box(text: Text, corners: list[list[float]]) -> dict[str, Any]:
    return {"text": text.text, "score": round(text.score, 4), "box": [[round(x), round(y)] for x, y in corners]}


class _Writer:
    """Puts lines below each other; a table has an empty line around it, and a column one above it."""

    def __init__(self) -> None:
        self._begun = self._in_table = False
        self._pending: bool | None = None
        """Whether what begins with a line that was not read is a table; None if nothing does."""

    def write(self, line: Line, texts: dict[int, Text]) -> str:
        """Return what is to be added for a line; nothing if nothing was read in it."""
        cells = [" ".join(texts[number].text.strip() for number in cell if number in texts) for cell in line.cells]
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
