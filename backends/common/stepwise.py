"""Backends that answer a request in steps: one step of each request in turn, so that a long one holds up no other."""

import abc
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from backends.common.errors import EngineDown, QueueFull, RequestFailure
from backends.common.triton import FINAL, error_response, request_parameters

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


class StepwiseModel(abc.ABC):
    """Answers probes, refuses what the queue has no room for, sends what `responses` yields."""

    @abc.abstractmethod
    def responses(self, request: Any) -> Iterator[Any]:
        """Read the request's inputs, which go when this returns, and return an iterator that does its work.

        Each of its items is the end of a step: a response, or None for one without. Raises RequestFailure.
        """

    def start(self, capacity: int, threads: int = 1) -> None:
        """Begin to take requests: up to `capacity` of them at once, worked for by `threads`."""
        self._capacity, self._round_robin = capacity, RoundRobin(threads)

    def is_alone(self) -> bool:
        """Tell whether one request at most is under way."""
        return len(self._round_robin) <= 1

    def execute(self, requests: list[Any]) -> None:
        """Take Triton's requests and return at once."""
        for request in requests:
            reply = request.get_response_sender()
            try:
                self._accept(request, reply)
            except Exception as error:
                _fail(request.request_id(), reply, error)

    def finalize(self) -> None:
        """Stop, as Triton asks before it unloads the model."""
        self._round_robin.stop()

    def _accept(self, request: Any, reply: Any) -> None:
        if request_parameters(request).get("probe"):
            reply.send(flags=FINAL)
            return
        if len(self._round_robin) >= self._capacity:
            raise QueueFull
        self._round_robin.add(_Work(self.responses(request), reply, request.request_id()))


class _Work:
    """A request's responses in the making, and its caller."""

    def __init__(self, responses: Iterator[Any], reply: Any, request_id: str):
        self._responses, self._reply, self._request_id = responses, reply, request_id
        self.is_cancelled = reply.is_cancelled

    def steps(self) -> Iterator[None]:
        for response in self._responses:
            if response is not None:
                self._reply.send(response)
            yield
        self._reply.send(flags=FINAL)

    def fail(self, error: BaseException) -> None:
        _fail(self._request_id, self._reply, error)

    def abandon(self) -> None:
        self._reply.send(flags=FINAL)


def _fail(request_id: str, reply: Any, error: BaseException) -> None:
    if not isinstance(error, RequestFailure):
        log.error("request %s failed", request_id, exc_info=error)
    reply.send(error_response(error), FINAL)
