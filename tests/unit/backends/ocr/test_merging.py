"""Tests of the merging of overlapping pieces of text."""

import numpy as np
import pytest

from backends.ocr.merging import merge_overlapping


def quad(left, top, right, bottom, degrees=0.0):
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    angle = np.radians(degrees)
    return (corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])).astype(np.float32)


def merged(*quads):
    return merge_overlapping(np.array(quads, np.float32).reshape(-1, 4, 2))


@pytest.mark.parametrize("degrees", [0, 10, -30, 90])
def test_overlapping_pieces_of_a_line_become_one(degrees):
    found = merged(quad(134, 18, 215, 44, degrees), quad(197, 18, 292, 45, degrees), quad(20, 18, 110, 44, degrees))
    assert [group for _, group in found] == [[0, 1], [2]]
    whole = found[0][0]
    np.testing.assert_allclose(np.sort(whole, axis=0), np.sort(quad(134, 18, 292, 45, degrees), axis=0), atol=0.1)
    np.testing.assert_allclose(found[1][0], quad(20, 18, 110, 44, degrees), atol=0.1)


def test_chains_of_overlapping_pieces_become_one():
    found = merged(quad(0, 0, 50, 20), quad(40, 1, 90, 21), quad(80, 0, 130, 20), quad(0, 40, 50, 60))
    assert [group for _, group in found] == [[0, 1, 2], [3]]


@pytest.mark.parametrize(
    "other",
    [
        quad(52, 0, 90, 20),  # beside
        quad(47, 0, 90, 20),  # overlaps by a little
        quad(0, 15, 50, 35),  # the next line
        quad(10, 9, 60, 29),  # a line that is half a line lower
        quad(30, -20, 90, 40),  # far larger text
    ],
)
def test_other_pieces_stay_separate(other):
    assert [group for _, group in merged(quad(0, 0, 50, 20), other)] == [[0], [1]]


def test_lines_with_different_slopes_stay_separate():
    quads = []
    for index in range(41):
        angle = np.radians((index - 20) * 0.25)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        quads.append(quad(-700, -15, 700, 15) @ turn + (700, index * 38))
    assert [group for _, group in merged(*quads)] == [[index] for index in range(41)]


def test_no_or_one_piece():
    assert merge_overlapping(np.empty((0, 4, 2), np.float32)) == []
    assert [group for _, group in merged(quad(0, 0, 50, 20))] == [[0]]
