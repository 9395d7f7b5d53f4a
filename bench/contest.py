"""Rivals in processes of their own that take turns with the stack, and the ratios between them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

_SPAWN = get_context("spawn")

Work = Callable[[bytes], object]


class Rival:
    """`make()`, called in a process of its own, returns what is done with a file."""

    def __init__(self, make: Callable[[], Work]):
        self._pipe, theirs = _SPAWN.Pipe()
        _SPAWN.Process(target=_serve, args=(theirs, make), daemon=True).start()

    def seconds(self, files: Sequence[bytes]) -> float:
        """Return how long the work on these files takes."""
        self._pipe.send(files)
        return float(self._pipe.recv())


def _serve(pipe: Connection, make: Callable[[], Work]) -> None:
    work = make()
    while True:
        files = pipe.recv()
        started = time.perf_counter()
        for file in files:
            work(file)
        pipe.send(time.perf_counter() - started)


def print_ratios(speeds: Mapping[str, Sequence[float]], rivals: Sequence[str], unit: str) -> None:
    """Print each contender's median speed, and its ratios to the rivals: the median of those of the same round.

    The first round is not counted.
    """
    for name, values in speeds.items():
        shown = "".join(
            f", ÷ {rival} = {statistics.median(a / b for a, b in zip(values[1:], speeds[rival][1:], strict=True)):.2f}"
            for rival in rivals
        )
        print(f"{name:18} {statistics.median(values[1:]):5.2f} {unit}{shown}")
