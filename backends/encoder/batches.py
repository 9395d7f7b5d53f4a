"""Cuts rows of different lengths into batches that waste little on padding."""

from collections.abc import Iterator, Sequence

# What starting one more run costs, in tokens computed: beyond that much padding two runs are cheaper than one.
_RUN_TOKENS = 24


def plan(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield batches of row numbers, the longest rows first, each batch of at most `budget` tokens padding included.

    A row over the budget is a batch of its own.
    """
    batch: list[int] = []
    padding = longest = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        padding += longest - lengths[row] if batch else 0
        if batch and ((len(batch) + 1) * longest > budget or padding > _RUN_TOKENS):
            yield batch
            batch, padding = [], 0
        if not batch:
            longest = lengths[row]
        batch.append(row)
    if batch:
        yield batch
