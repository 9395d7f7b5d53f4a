"""Runs rivals of Trident, each in its own process, and prints the ratios of the contenders' speeds.

A contender is a rival, or Trident with certain options. The benchmarks let the contenders take turns.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

_SPAWN = get_context("spawn")

# A function from one input to its result.
Work = Callable[[Any], Any]


class Rival:
    """A process that calls `make(*arguments)` once, and then calls the function that `make` returned with each request.

    The arguments, requests and results are pickled, because they pass between two processes.
    """

    def __init__(self, make: Callable[..., Work], *arguments: object):
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that recv() raises EOFError when the process exits

    def __enter__(self) -> "Rival":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def call(self, request: object = None) -> Any:
        """Return the result of one request. Raises EOFError or OSError if the process has exited."""
        self._pipe.send(request)
        return self._pipe.recv()


def _serve(pipe: Connection, make: Callable[..., Work], arguments: tuple[object, ...]) -> None:
    work = make(*arguments)
    while True:
        pipe.send(work(pipe.recv()))


def timed(work: Work) -> Work:
    """Return a function that calls `work` for each input of a list, and returns the total time in seconds."""

    def seconds(inputs: Sequence[object]) -> float:
        started = time.perf_counter()
        for each in inputs:
            work(each)
        return time.perf_counter() - started

    return seconds


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of `ours` ÷ `theirs` over all rounds except the first, which is a warm-up."""
    return statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))


def print_ratios(speeds: Mapping[str, Sequence[float]], rivals: Sequence[str], unit: str) -> None:
    """Print each contender's median speed, and the median ratio of its speed to each rival's speed in the same round.

    `speeds` maps each contender to its speeds, one per round. The first round is a warm-up and does not count.
    """
    width = max(map(len, speeds))
    for name, values in speeds.items():
        shown = "".join(f", ÷ {rival} = {median_ratio(values, speeds[rival]):.2f}" for rival in rivals)
        print(f"  {name:{width}}  {statistics.median(values[1:]):6.4g} {unit}{shown}", flush=True)
