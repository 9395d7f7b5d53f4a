"""The order in which pieces of text are read: rows, columns one after the other, and tables.

From where the pieces are alone, so that it is known before the first of them is recognized.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.ocr.text_recognizer import Quads

# Pieces are in one row where they share this part of the lower one's height.
_SAME_ROW = 0.5

# How wide the gap between two columns is, in heights of a line.
_GAP = 0.7

# Rows that two columns need to be a table: two pieces beside each other may be chance.
_MIN_ROWS = {2: 3}

# A line by itself is not of the columns above it where so many heights of a line are free between them.
_APART = 0.5

# Lines of a table are in one row where the next one begins by this part of a height above the end of the one before.
_STRADDLES = 0.25

# Columns are prose, and not a table's, from so many rows on, where most lines fill so much of them, and are so long.
_PROSE_ROWS, _PROSE_FILL, _PROSE_LENGTH = 4, 0.75, 8


class Piece(NamedTuple):
    """An upright rectangle around a piece of text, and its place among the quadrangles."""

    left: float
    top: float
    right: float
    bottom: float
    number: int

    @property
    def height(self) -> float:
        return self.bottom - self.top


Span = tuple[float, float]
Row = list[Piece]


@dataclass(frozen=True)
class Line:
    """What is read together. Each cell is the numbers of its pieces, from left to right; text has one cell.

    `table` tells whether it is a row of a table, `first` whether a table, or a column of text, begins with it.
    """

    cells: tuple[tuple[int, ...], ...]
    table: bool = False
    first: bool = False


def find_lines(quads: Quads) -> list[Line]:
    """Return the lines of a page in the order of reading."""
    rows = _rows(_upright(quads))
    lines: list[Line] = []
    while rows:
        block, gaps = _block(rows)
        columns, table = _columns(block, gaps), _table(block, gaps)
        if _is_prose(columns):
            lines.extend(_read_columns(columns))
        elif sum(_is_divided(line) for line in table) >= _MIN_ROWS.get(len(columns), 2):
            lines.extend(table)
        else:
            lines.extend(_text(row) for row in block)
        rows = rows[len(block) :]
    return lines


def _is_divided(line: Line) -> bool:
    return sum(map(bool, line.cells)) > 1


def _upright(quads: Quads) -> list[Piece]:
    """Return the rectangles around the pieces, once the page is turned so that most of them lie level."""
    if not len(quads):
        return []
    edges = quads[:, 1] - quads[:, 0]
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    long = lengths >= np.median(lengths)
    angle = -float(np.median(np.arctan2(edges[long, 1], edges[long, 0])))
    turned = quads @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # Of a line that is bent, or leans, the mean of its corners is nearer to what it covers than their extremes.
    left, right = turned[:, [0, 3], 0].mean(1), turned[:, [1, 2], 0].mean(1)
    top, bottom = turned[:, [0, 1], 1].mean(1), turned[:, [2, 3], 1].mean(1)
    sides = [side.tolist() for side in (left, top, right, bottom)]
    return [Piece(*rectangle) for rectangle in zip(*sides, range(len(quads)), strict=True)]


def _rows(pieces: Sequence[Piece]) -> list[Row]:
    """Return the pieces in rows, from the top down, each from left to right."""
    rows: list[Row] = []
    for piece in sorted(pieces, key=lambda piece: piece.top + piece.bottom):
        row = next((row for row in reversed(rows[-3:]) if _fits(piece, row)), None)
        if row is None:
            rows.append([piece])
        else:
            row.append(piece)
    return [sorted(row) for row in rows]


def _fits(piece: Piece, row: Row) -> bool:
    """Tell whether a piece stands beside the last one of a row."""
    last = row[-1]
    shared = min(piece.bottom, last.bottom) - max(piece.top, last.top)
    apart = all(piece.left >= other.right - other.height or piece.right <= other.left + other.height for other in row)
    return apart and shared >= _SAME_ROW * min(piece.height, last.height)


def _block(rows: Sequence[Row]) -> tuple[list[Row], list[Span]]:
    """Return the first rows that have the same columns, and the gaps between those."""
    gaps, size = _gaps(rows[0]), 1
    count = len(_columns(rows[:1], gaps))
    for row in rows[1:] if count > 1 or _are_out_of_step(rows) else ():
        shared = _intersect(gaps, _gaps(row))
        columns = len(_columns(rows[: size + 1], shared))
        if columns < count:
            break  # it crosses a gap
        if size == 1 and len(row) > 1 and len(_columns([row], _gaps(row))) > columns:
            break  # it is divided further: what is above it is not of its table
        gaps, size, count = shared, size + 1, columns
    block = list(rows[:size])
    while len(block) > 1 and len(block[-1]) < 2 and _is_apart(block):
        block.pop()
    return block, gaps


def _are_out_of_step(rows: Sequence[Row]) -> bool:
    """Tell whether the first two rows, a single piece each, stand beside each other, one somewhat lower."""
    if len(rows) < 2 or len(rows[0]) > 1 or len(rows[1]) > 1:
        return False
    (one,), (other,) = rows[0], rows[1]
    return one.bottom > other.top and (one.right < other.left or other.right < one.left)


def _is_apart(block: Sequence[Row]) -> bool:
    """Tell whether the last row, of a single piece, comes after the columns and is not the end of one."""
    (piece,), before = block[-1], block[-2]
    return piece.top - max(above.bottom for above in before) > _APART * piece.height


def _gaps(row: Row) -> list[Span]:
    """Return the free spans of a row that are wide enough to part columns; those at its ends are endless."""
    minimum = _GAP * float(np.median([piece.height for piece in row]))
    ends = [-np.inf, *(piece.right for piece in row)]
    begins = [*(piece.left for piece in row), np.inf]
    return [(end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end >= minimum]


def _intersect(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other]
    return [(begin, end) for begin, end in both if end > begin]


def _columns(block: Sequence[Row], gaps: Sequence[Span]) -> list[list[Row]]:
    """Return the rows of each column, those that have something in it."""
    columns = [[cell for cell in column if cell] for column in zip(*_grid(block, gaps), strict=True)]
    return [column for column in columns if column]


def _grid(block: Sequence[Row], gaps: Sequence[Span]) -> list[list[Row]]:
    """Return the pieces of each row, gap by gap."""
    middles = [(begin + end) / 2 for begin, end in gaps]
    grid: list[list[Row]] = []
    for row in block:
        cells: list[Row] = [[] for _ in range(len(gaps) + 1)]
        for piece in row:
            cells[bisect(middles, (piece.left + piece.right) / 2)].append(piece)
        grid.append(cells)
    return grid


def _is_prose(columns: Sequence[list[Row]]) -> bool:
    """Tell whether these are columns of running text: most of their lines are full, and long."""
    return len(columns) > 1 and all(_is_running(column) for column in columns)


def _is_running(column: Sequence[Row]) -> bool:
    spans: NDArray[np.float64] = np.array([(row[0].left, max(piece.right for piece in row)) for row in column])
    width = spans[:, 1].max() - spans[:, 0].min()
    height = float(np.median([piece.height for row in column for piece in row]))
    full = float(np.median(spans[:, 1] - spans[:, 0])) / width
    return len(column) >= _PROSE_ROWS and full >= _PROSE_FILL and width >= _PROSE_LENGTH * height


def _read_columns(columns: Sequence[list[Row]]) -> Iterator[Line]:
    for column in columns:
        for place, row in enumerate(column):
            yield _text(row, first=place == 0)


def _table(block: Sequence[Row], gaps: Sequence[Span]) -> list[Line]:
    """Return the rows of a table; lines that reach into each other's height are of one row."""
    grid = _grid(block, gaps)
    filled = [any(column) for column in zip(*grid, strict=True)]
    rows: list[list[Row]] = []
    for place, cells in enumerate(grid):
        if place and _straddle(block[place - 1], block[place]):
            rows[-1] = [above + cell for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    numbers = [[tuple(piece.number for piece in cell) for cell in cells] for cells in rows]
    return [
        Line(
            tuple(cell for cell, is_filled in zip(row, filled, strict=True) if is_filled), table=True, first=place == 0
        )
        for place, row in enumerate(numbers)
    ]


def _straddle(above: Row, below: Row) -> bool:
    shared = min(piece.bottom for piece in above) - max(piece.top for piece in below)
    return shared > _STRADDLES * min(piece.height for piece in above + below)


def _text(row: Row, first: bool = False) -> Line:
    return Line((tuple(piece.number for piece in row),), first=first)
