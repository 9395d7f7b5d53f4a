"""Rivals in processes of their own that take turns with the stack, and the ratios between them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

_SPAWN = get_context("spawn")

# What a rival does with a question; the answer goes back through a pipe.
Work = Callable[[Any], Any]


class Rival:
    """`make(*arguments)`, called in a process of its own, returns what is done with each question."""

    def __init__(self, make: Callable[..., Work], *arguments: object):
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def __enter__(self) -> "Rival":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def ask(self, question: object = None) -> Any:
        """Return the answer to one question. Raises EOFError if the process has ended."""
        self._pipe.send(question)
        return self._pipe.recv()


def _serve(pipe: Connection, make: Callable[..., Work], arguments: tuple[object, ...]) -> None:
    work = make(*arguments)
    while True:
        pipe.send(work(pipe.recv()))


def timed(work: Work) -> Work:
    """Return what does `work` with each of a list of inputs and answers the seconds that took."""

    def seconds(inputs: Sequence[object]) -> float:
        started = time.perf_counter()
        for each in inputs:
            work(each)
        return time.perf_counter() - started

    return seconds


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of the same round, the first left out: it warms up."""
    return statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))


def print_ratios(speeds: Mapping[str, Sequence[float]], rivals: Sequence[str], unit: str) -> None:
    """Print each contender's median speed and its ratios to the rivals; the first round is not counted."""
    width = max(map(len, speeds))
    for name, values in speeds.items():
        shown = "".join(f", ÷ {rival} = {median_ratio(values, speeds[rival]):.2f}" for rival in rivals)
        print(f"  {name:{width}}  {statistics.median(values[1:]):6.4g} {unit}{shown}", flush=True)
