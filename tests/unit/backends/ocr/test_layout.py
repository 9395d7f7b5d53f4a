"""The reading order, columns and tables that OCR determines from the positions of pieces of text."""

import numpy as np
import pytest

from backends.ocr.layout import find_lines

HEIGHT = 20


def quad(left, top, width, height=HEIGHT):
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def lines_of(*rectangles, angle=0.0):
    quads = np.array([quad(*rectangle) for rectangle in rectangles], np.float32).reshape(-1, 4, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return find_lines((quads @ np.array([[cos, sin], [-sin, cos]])).astype(np.float32))


def text(lines):
    return [line.cells[0] for line in lines]


def test_a_page_without_text_has_no_lines():
    assert lines_of() == []


@pytest.mark.parametrize("angle", [0, 0.1, -0.1, 0.5])
def test_rows_are_read_from_top_to_bottom_and_left_to_right(angle):
    """The input is not in reading order, and the first line of text consists of two pieces."""
    lines = lines_of((0, 60, 400), (210, 0, 190), (0, 30, 400), (0, 2, 205), angle=angle)
    assert text(lines) == [(3, 1), (2,), (0,)]
    assert not any(line.table for line in lines)


def test_columns_of_text_are_read_one_after_the_other():
    title, foot = (100, 0, 500), (0, 300, 700)
    left = [(0, 60 + 30 * n, 300 + n) for n in range(6)]
    right = [(400, 70 + 30 * n, 300 - n) for n in range(5)]
    lines = lines_of(title, *left, *right, foot)
    assert text(lines) == [(n,) for n in range(13)]
    assert [number for number, line in enumerate(lines) if line.first] == [1, 7]


def test_a_table_with_an_empty_cell_is_found_between_lines_of_text():
    above, below = (0, 0, 700), (0, 300, 700)
    head = [(0, 60, 80), (200, 60, 90), (400, 60, 60)]
    rows = [(0, 100, 60), (400, 100, 40), (0, 140, 100), (200, 140, 30), (400, 140, 40)]
    lines = lines_of(above, *head, *rows, below)
    assert [line.table for line in lines] == [False, True, True, True, False]
    assert [line.cells for line in lines[1:4]] == [((1,), (2,), (3,)), ((4,), (), (5,)), ((6,), (7,), (8,))]
    assert [line.first for line in lines] == [False, True, False, False, False]


def test_two_lines_next_to_a_vertically_centered_cell_form_one_cell():
    head = [(0, 0, 200), (300, 0, 60)]
    rows = [(0, 60, 200), (300, 72, 60), (0, 84, 150), (0, 140, 200), (300, 152, 60), (0, 164, 90)]
    lines = lines_of(*head, *rows)
    assert [line.cells for line in lines] == [((0,), (1,)), ((2, 4), (3,)), ((5, 7), (6,))]


def test_two_rows_of_two_pieces_are_not_a_table():
    lines = lines_of((0, 0, 100), (300, 0, 50), (0, 30, 90), (300, 30, 60))
    assert text(lines) == [(0, 1), (2, 3)]


@pytest.mark.parametrize("lower", [5, 11, 15, 18, 25])
def test_columns_are_found_even_if_their_lines_are_at_different_heights(lower):
    left = [(0, 30 * n, 300 + n % 2) for n in range(6)]
    right = [(400, lower + 30 * n, 300 - n % 2) for n in range(6)]
    assert text(lines_of(*left, *right)) == [(n,) for n in range(12)]
