"""Merges overlapping pieces of a line of text: read by themselves, both would have the letters in the overlap."""

import numpy as np
from numpy.typing import NDArray

Quads = NDArray[np.float32]


# Two pieces are one if they overlap along the line by at least this fraction of the smaller height, and across the line
# by at least the other fraction of it. The detector makes pieces somewhat larger than their text, so that neighbors may
# overlap by a little without sharing a letter.
_OVERLAP_ALONG, _OVERLAP_ACROSS = 0.25, 0.6

# A piece whose ends differ in height by more than this fraction of its own height is not merged.
_MAX_TILT = 0.4

# Pieces of very different height are not on the same line.
_MAX_HEIGHT_RATIO = 1.8


def merge_overlapping(quads: Quads) -> list[tuple[Quads, list[int]]]:
    """Return the merged quadrangles, each with the indexes of the quadrangles that it covers."""
    if len(quads) < 2:
        return [(quad, [index]) for index, quad in enumerate(quads)]
    edges = quads[:, 1] - quads[:, 0]
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    angle = float(np.median(np.arctan2(edges[:, 1], edges[:, 0])[lengths >= np.median(lengths)]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    level = quads @ turn
    low, high = level.min(axis=1), level.max(axis=1)
    sides = quads[:, 3] - quads[:, 0]
    heights = np.hypot(sides[:, 0], sides[:, 1])
    # Only a band in the box of a tilted piece is text, so where two such pieces meet is not known.
    tilts = np.abs((np.arctan2(edges[:, 1], edges[:, 0]) - angle + np.pi / 2) % np.pi - np.pi / 2) * lengths
    is_level = tilts <= _MAX_TILT * heights
    smaller = np.minimum(heights[:, None], heights[None])
    along, across = (
        np.minimum(high[:, None, axis], high[None, :, axis]) - np.maximum(low[:, None, axis], low[None, :, axis])
        for axis in (0, 1)
    )
    similar = np.maximum(heights[:, None], heights[None]) <= _MAX_HEIGHT_RATIO * smaller
    similar &= is_level[:, None] & is_level[None]
    joined = (along >= _OVERLAP_ALONG * smaller) & (across >= _OVERLAP_ACROSS * smaller) & similar
    merged = []
    for group in _groups(joined):
        quad = quads[group[0]]
        if len(group) > 1:
            (left, top), (right, bottom) = low[group].min(axis=0), high[group].max(axis=0)
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
            quad = (corners @ turn.T).astype(np.float32)
        merged.append((quad, group))
    return merged


def _groups(joined: NDArray[np.bool_]) -> list[list[int]]:
    """Return the connected groups of indexes, given which pairs are joined."""
    groups: list[list[int]] = []
    seen = np.zeros(len(joined), bool)
    for start in range(len(joined)):
        if seen[start]:
            continue
        group, waiting = [], [start]
        seen[start] = True
        while waiting:
            index = waiting.pop()
            group.append(index)
            new = np.flatnonzero(joined[index] & ~seen)
            seen[new] = True
            waiting += new.tolist()
        groups.append(sorted(group))
    return groups
