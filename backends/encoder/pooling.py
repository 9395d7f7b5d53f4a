"""From a network's output to one row of numbers a text."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# (output of the network, [rows, tokens, width] or [rows, width]; tokens of each row) → [rows, width]
Pooling = Callable[[Array, NDArray[np.int64]], Array]


def mean(hidden: Array, lengths: NDArray[np.int64]) -> Array:
    """Average each row's tokens, padding left out."""
    mask = (np.arange(hidden.shape[1]) < lengths[:, None]).astype(np.float32)
    averages: Array = np.einsum("btw,bt->bw", hidden, mask) / lengths[:, None].astype(np.float32)
    return averages


def cls(hidden: Array, lengths: NDArray[np.int64]) -> Array:
    """Take each row's first token."""
    return hidden[:, 0]


def last(hidden: Array, lengths: NDArray[np.int64]) -> Array:
    """Take each row's last token that is not padding."""
    rows: Array = hidden[np.arange(len(hidden)), lengths - 1]
    return rows


def none(output: Array, lengths: NDArray[np.int64]) -> Array:
    """Take the output as it is: the network pools by itself, as a classifier does."""
    return output


POOLINGS: dict[str, Pooling] = {"mean": mean, "cls": cls, "last": last, "none": none}


def normalize(rows: Array) -> Array:
    """Give each row the length 1."""
    with np.errstate(invalid="ignore"):
        normalized: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalized
