"""Runs an ONNX encoder: batches rows of tokens with little padding, and pools the output of each row."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backends.common.network import open_network
from backends.encoder.tokens import Tokens
from contract.parameters import EncoderParameters

Array = NDArray[np.float32]
# A function from the network's output and the number of tokens in each row to an array [rows, width]. The output has
# the shape [rows, tokens, width], or [rows, width] if the network itself pools.
Pooling = Callable[[Array, NDArray[np.int64]], Array]


def mean(hidden: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the mean of each row's token vectors, without the vectors of padding."""
    mask = (np.arange(hidden.shape[1]) < lengths[:, None]).astype(np.float32)
    averages: Array = np.einsum("btw,bt->bw", hidden, mask) / lengths[:, None].astype(np.float32)
    return averages


def cls(hidden: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the vector of each row's first token."""
    return hidden[:, 0]


def last(hidden: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the vector of each row's last token that is not padding."""
    rows: Array = hidden[np.arange(len(hidden)), lengths - 1]
    return rows


def none(output: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the output unchanged, for a network that pools by itself, such as a classifier."""
    return output


POOLINGS: dict[str, Pooling] = {"mean": mean, "cls": cls, "last": last, "none": none}


def normalize(rows: Array) -> Array:
    """Return the rows scaled to length 1; a row of zeros becomes NaN."""
    with np.errstate(invalid="ignore"):
        normalized: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalized


# Starting a run takes as long as computing this many tokens. A batch with more padding tokens is split into two runs.
_RUN_TOKENS = 24


def plan(lengths: Sequence[int], budget: int, max_rows: int | None = None) -> Iterator[list[int]]:
    """Yield batches of row indices, from the longest row to the shortest.

    A batch has at most `max_rows` rows, and at most `budget` tokens, including padding. A row that is longer than the
    budget is a batch of its own.
    """
    batch: list[int] = []
    padding = longest = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        padding += longest - lengths[row] if batch else 0
        is_full = (len(batch) + 1) * longest > budget or len(batch) == max_rows
        if batch and (is_full or padding > _RUN_TOKENS):
            yield batch
            batch, padding = [], 0
        if not batch:
            longest = lengths[row]
        batch.append(row)
    if batch:
        yield batch


class Network(Protocol):
    """Computes one vector or score per row."""

    def run(self, rows: Sequence[Tokens]) -> Array:
        """Return one vector per row, as an array [rows, width], in the order of `rows`."""

    def warm_up(self) -> None:
        """Run the network before the first request, because a first run is slow."""


class OnnxNetwork:
    """Runs a model's ONNX network, and pools its output into one vector per row.

    An optional score.npy next to the model holds the difference between the output embeddings of two words, such as yes
    and no. The product of this array and a language model's hidden state is the difference between the logits of the
    two words.
    """

    def __init__(self, folder: Path, parameters: EncoderParameters):
        path = folder / "model.onnx"
        self._network = open_network(path, parameters.device, parameters.threads, parameters.network)
        self._pool = POOLINGS[parameters.pooling]
        self._normalize = parameters.normalize
        self._budget = parameters.max_batch_tokens
        score = folder / "score.npy"
        self._score: Array | None = np.load(score) if score.exists() else None

    def run(self, rows: Sequence[Tokens]) -> Array:
        """Return one vector per row, as an array [rows, width], in the order of `rows`."""
        lengths = [len(row.ids) for row in rows]
        result: Array | None = None
        for batch in plan(lengths, self._budget, self._network.max_rows):
            pooled = self._run_batch([rows[i] for i in batch])
            if result is None:
                result = np.empty((len(rows), pooled.shape[1]), np.float32)
            result[batch] = pooled
        assert result is not None  # noqa: S101
        return normalize(result) if self._normalize else result

    def warm_up(self) -> None:
        """See `Network`."""
        self._network.warm_up(self._feeds([Tokens([1] * 16, [0] * 16)])[0])

    def _run_batch(self, rows: Sequence[Tokens]) -> Array:
        feeds, lengths = self._feeds(rows)
        pooled = self._pool(self._network.run(feeds).astype(np.float32, copy=False), lengths)
        return pooled if self._score is None else pooled @ self._score[:, None]

    def _feeds(self, rows: Sequence[Tokens]) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
        """Return the network's inputs for rows, and the lengths of the rows."""
        lengths = np.array([len(row.ids) for row in rows])
        shape = (len(rows), int(lengths.max()))
        ids, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for index, row in enumerate(rows):
            ids[index, : lengths[index]] = row.ids
            types[index, : lengths[index]] = row.types
        positions = np.arange(shape[1])
        feeds = {
            "input_ids": ids,
            "attention_mask": (positions < lengths[:, None]).astype(np.int64),
            "token_type_ids": types,
            "position_ids": np.broadcast_to(positions, shape).astype(np.int64),
        }
        return {name: feeds[name] for name in self._network.inputs}, lengths
