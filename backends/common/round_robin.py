"""Few threads that do the work of all requests in turn: a long file, or text, does not hold up a short one."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from backends.common.errors import EngineDown

log = logging.getLogger(__name__)

# A turn is a step, and those after it that cost nothing: of a window of speech all segments come at once.
_TURN_SECONDS = 0.2


class Work(Protocol):
    """A request under way."""

    def is_cancelled(self) -> bool: ...

    def steps(self) -> Iterator[None]:
        """Do one step at each `next`."""
        ...

    def fail(self, error: BaseException) -> None: ...

    def abandon(self) -> None:
        """The caller has left."""
        ...


class RoundRobin:
    """Runs what is added, `threads` at a time, a step of each in turn; `len` tells how many are under way."""

    def __init__(self, threads: int = 1) -> None:
        self._waiting: deque[tuple[Work, Iterator[None]]] = deque()
        self._changed = threading.Condition()
        self._count = 0
        self._stopped = False
        self._threads = [threading.Thread(target=self._run, name="turns", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return self._count

    def add(self, work: Work) -> None:
        """Begin with `work` at its first turn."""
        with self._changed:
            self._count += 1
            self._waiting.append((work, work.steps()))
            self._changed.notify()

    def stop(self) -> None:
        """End after the steps that are being done; whatever waits fails."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for work, _ in self._waiting:
            self._fail(work, EngineDown("The model is being unloaded"))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                work, steps = self._waiting.popleft()
            goes_on = self._step(work, steps)
            with self._changed:
                if goes_on:
                    self._waiting.append((work, steps))
                    self._changed.notify()
                else:
                    self._count -= 1
            del work, steps  # a finished file would stay in memory until the next one comes

    def _step(self, work: Work, steps: Iterator[None]) -> bool:
        """Do one turn's steps; return whether there are more. Whatever goes wrong is that request's alone."""
        ends = time.monotonic() + _TURN_SECONDS
        try:
            while time.monotonic() < ends:
                if work.is_cancelled():
                    work.abandon()
                    return False
                next(steps)
        except StopIteration:
            return False
        except BaseException as error:  # a library's panic too: this thread may not die
            self._fail(work, error)
            return False
        return True

    def _fail(self, work: Work, error: BaseException) -> None:
        try:
            work.fail(error)
        except Exception:
            log.exception("a failure could not be reported")
