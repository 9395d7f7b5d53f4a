"""Finds the reading order of the text on a page, including columns of text and tables.

A piece of text is a region that the text detector found: a line or part of a line. This module uses only the positions
of the pieces, so it finds the order before any text is recognized.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.ocr.text_recognizer import Quads

# Two pieces side by side are in the same row if they overlap vertically by at least this fraction of the height of the
# smaller piece.
_SAME_ROW = 0.5

# Minimum gap between two columns, in line heights.
_GAP = 0.7

# A block is a table if at least this many of its rows have text in several columns. The keys are numbers of columns.
# For a number that is not listed, the minimum is 2 rows. Two columns need more rows than three columns do, because two
# pieces may be side by side by coincidence.
_MIN_ROWS = {2: 3}

# A row of a single piece is not part of the columns above it if the vertical gap between the piece and the columns is
# more than this many times the height of the piece.
_APART = 0.5

# Two successive lines of a table form one row if they overlap vertically by more than this fraction of the height of
# their smallest piece.
_TABLE_OVERLAP = 0.25

# Columns are running text rather than a table if each column has at least _PROSE_ROWS lines, its median line fills at
# least the fraction _PROSE_FILL of the column's width, and that width is at least _PROSE_LENGTH line heights.
_PROSE_ROWS, _PROSE_FILL, _PROSE_LENGTH = 4, 0.75, 8


class Piece(NamedTuple):
    """The rectangle of a piece of text after the page has been leveled, and the index of the piece's quadrangle."""

    left: float
    top: float
    right: float
    bottom: float
    quad_index: int

    @property
    def height(self) -> float:
        return self.bottom - self.top


Span = tuple[float, float]
Row = list[Piece]


@dataclass(frozen=True)
class Line:
    """A line of text, which has a single cell, or a row of a table, which has a cell for each column.

    A cell is a tuple with the indices of its pieces in reading order.

    `table` marks a row of a table; `first` marks the first row of a table, or the first line of a column of text.
    """

    cells: tuple[tuple[int, ...], ...]
    table: bool = False
    first: bool = False


def find_lines(quads: Quads) -> list[Line]:
    """Return the lines of a page in reading order."""
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
    """Return the rectangles of the pieces, after leveling the page by the median angle of its longer pieces."""
    if not len(quads):
        return []
    edges = quads[:, 1] - quads[:, 0]
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    long = lengths >= np.median(lengths)
    angle = -float(np.median(np.arctan2(edges[long, 1], edges[long, 0])))
    turned = quads @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # Each side is at the mean position of its two corners. For a bent or slanted line, the mean fits better than the
    # outer corner.
    left, right = turned[:, [0, 3], 0].mean(1), turned[:, [1, 2], 0].mean(1)
    top, bottom = turned[:, [0, 1], 1].mean(1), turned[:, [2, 3], 1].mean(1)
    sides = [side.tolist() for side in (left, top, right, bottom)]
    return [Piece(*rectangle) for rectangle in zip(*sides, range(len(quads)), strict=True)]


def _rows(pieces: Sequence[Piece]) -> list[Row]:
    """Return the pieces in rows from top to bottom, each row from left to right."""
    rows: list[Row] = []
    for piece in sorted(pieces, key=lambda piece: piece.top + piece.bottom):
        row = next((row for row in reversed(rows[-3:]) if _is_in_row(piece, row)), None)
        if row is None:
            rows.append([piece])
        else:
            row.append(piece)
    return [sorted(row) for row in rows]


def _is_in_row(piece: Piece, row: Row) -> bool:
    """Return whether a piece is beside all pieces of a row, and level with the piece that was added to the row last."""
    last = row[-1]
    shared = min(piece.bottom, last.bottom) - max(piece.top, last.top)
    apart = all(piece.left >= other.right - other.height or piece.right <= other.left + other.height for other in row)
    return apart and shared >= _SAME_ROW * min(piece.height, last.height)


def _block(rows: Sequence[Row]) -> tuple[list[Row], list[Span]]:
    """Return the first block of `rows`, and the gaps around its columns.

    A block is a group of successive rows that share the same columns, or a single row.
    """
    gaps, size = _gaps(rows[0]), 1
    count = len(_columns(rows[:1], gaps))
    for row in rows[1:] if count > 1 or _are_out_of_step(rows) else ():
        shared = _intersect(gaps, _gaps(row))
        columns = len(_columns(rows[: size + 1], shared))
        if columns < count:
            break  # the row crosses a gap between columns
        if size == 1 and len(row) > 1 and len(_columns([row], _gaps(row))) > columns:
            break  # the row has more columns than the row above, which is therefore not part of the same table
        gaps, size, count = shared, size + 1, columns
    block = list(rows[:size])
    while len(block) > 1 and len(block[-1]) < 2 and _is_apart(block):
        block.pop()
    return block, gaps


def _are_out_of_step(rows: Sequence[Row]) -> bool:
    """Return whether the first two rows are single pieces side by side, one slightly lower than the other."""
    if len(rows) < 2 or len(rows[0]) > 1 or len(rows[1]) > 1:
        return False
    (one,), (other,) = rows[0], rows[1]
    return one.bottom > other.top and (one.right < other.left or other.right < one.left)


def _is_apart(block: Sequence[Row]) -> bool:
    """Return whether the last row, a single piece, is too far below the row above to be the last line of a column."""
    (piece,), before = block[-1], block[-2]
    return piece.top - max(above.bottom for above in before) > _APART * piece.height


def _gaps(row: Row) -> list[Span]:
    """Return the horizontal gaps in a row that can separate columns, and the infinite gaps to its left and right."""
    minimum = _GAP * float(np.median([piece.height for piece in row]))
    ends = [-np.inf, *(piece.right for piece in row)]
    begins = [*(piece.left for piece in row), np.inf]
    return [(end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end >= minimum]


def _intersect(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other]
    return [(begin, end) for begin, end in both if end > begin]


def _columns(block: Sequence[Row], gaps: Sequence[Span]) -> list[list[Row]]:
    """Return the non-empty columns, each as a list of its non-empty cells."""
    columns = [[cell for cell in column if cell] for column in zip(*_grid(block, gaps), strict=True)]
    return [column for column in columns if column]


def _grid(block: Sequence[Row], gaps: Sequence[Span]) -> list[list[Row]]:
    """Return each row's pieces, divided into cells at the gaps."""
    middles = [(begin + end) / 2 for begin, end in gaps]
    grid: list[list[Row]] = []
    for row in block:
        cells: list[Row] = [[] for _ in range(len(gaps) + 1)]
        for piece in row:
            cells[bisect(middles, (piece.left + piece.right) / 2)].append(piece)
        grid.append(cells)
    return grid


def _is_prose(columns: Sequence[list[Row]]) -> bool:
    """Return whether there are several columns, all of running text."""
    return len(columns) > 1 and all(_is_running(column) for column in columns)


def _is_running(column: Sequence[Row]) -> bool:
    spans: NDArray[np.float64] = np.array([(row[0].left, max(piece.right for piece in row)) for row in column])
    width = spans[:, 1].max() - spans[:, 0].min()
    height = float(np.median([piece.height for row in column for piece in row]))
    full = float(np.median(spans[:, 1] - spans[:, 0])) / width
    return len(column) >= _PROSE_ROWS and full >= _PROSE_FILL and width >= _PROSE_LENGTH * height


def _read_columns(columns: Sequence[list[Row]]) -> Iterator[Line]:
    for column in columns:
        for index, row in enumerate(column):
            yield _text(row, first=index == 0)


def _table(block: Sequence[Row], gaps: Sequence[Span]) -> list[Line]:
    """Return the block as rows of a table, with successive lines merged into one row if they overlap vertically."""
    grid = _grid(block, gaps)
    filled = [any(column) for column in zip(*grid, strict=True)]
    rows: list[list[Row]] = []
    for index, cells in enumerate(grid):
        if index and _overlap(block[index - 1], block[index]):
            rows[-1] = [above + cell for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    indices = [[tuple(piece.quad_index for piece in cell) for cell in cells] for cells in rows]
    return [
        Line(
            tuple(cell for cell, is_filled in zip(row, filled, strict=True) if is_filled), table=True, first=index == 0
        )
        for index, row in enumerate(indices)
    ]


def _overlap(above: Row, below: Row) -> bool:
    shared = min(piece.bottom for piece in above) - max(piece.top for piece in below)
    return shared > _TABLE_OVERLAP * min(piece.height for piece in above + below)


def _text(row: Row, first: bool = False) -> Line:
    return Line((tuple(piece.quad_index for piece in row),), first=first)
