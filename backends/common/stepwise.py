"""Runs requests in steps, round-robin, so that a long request does not block the others."""

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

# In its turn, a request runs steps until this time has passed, so that several short steps share one turn. For example,
# all segments of a window of speech are ready at once, but each segment is sent in its own step.
_TURN_SECONDS = 0.2


IDLE = object()
"""What a request yields instead of None if it waits: its turn ends at once."""


class Work(Protocol):
    """A request in progress."""

    def is_cancelled(self) -> bool: ...

    def steps(self) -> Iterator[object]:
        """Return an iterator that performs one step each time `next` is called, and yields IDLE if it waits."""
        ...

    def fail(self, error: BaseException) -> None: ...

    def cancel(self) -> None:
        """End the request, which the client has cancelled."""
        ...


class RoundRobin:
    """Runs requests in turn on `threads` threads. `len()` of this object is the number of unfinished requests."""

    def __init__(self, threads: int = 1) -> None:
        self._waiting: deque[tuple[Work, Iterator[object]]] = deque()
        self._changed = threading.Condition()
        self._count = 0
        self._stopped = False
        self._threads = [threading.Thread(target=self._run, name="turns", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return self._count

    def add(self, work: Work) -> None:
        """Add `work` at the end of the queue."""
        with self._changed:
            self._count += 1
            self._waiting.append((work, work.steps()))
            self._changed.notify()

    def stop(self) -> None:
        """Wait for the current turns to end, then fail all waiting work. No more steps run."""
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
            has_more = self._step(work, steps)
            with self._changed:
                if has_more:
                    self._waiting.append((work, steps))
                    self._changed.notify()
                else:
                    self._count -= 1
            del work, steps  # otherwise a finished request's file stays in memory until the next request

    def _step(self, work: Work, steps: Iterator[object]) -> bool:
        """Run one turn and return whether there are more steps. An error fails only this request."""
        turn_end = time.monotonic() + _TURN_SECONDS
        try:
            while time.monotonic() < turn_end:
                if work.is_cancelled():
                    work.cancel()
                    return False
                if next(steps) is IDLE:
                    return True
        except StopIteration:
            return False
        except BaseException as error:  # a Rust library's panic is not an Exception; this thread must not die
            self._fail(work, error)
            return False
        return True

    def _fail(self, work: Work, error: BaseException) -> None:
        try:
            work.fail(error)
        except Exception:
            log.exception("could not report a failure")


class StepwiseModel(abc.ABC):
    """Base class of models that run requests in steps.

    The class answers probes, which only check that the model responds, and rejects requests beyond its capacity.
    """

    @abc.abstractmethod
    def responses(self, request: Any) -> Iterator[Any]:
        """Read the request's inputs, and return an iterator that does the work and yields the responses.

        The inputs must be read before this method returns, because Triton frees them afterwards. The iterator ends each
        step by yielding a response, None if the step has none, or IDLE if it waits. Both may raise RequestFailure.
        """

    def start(self, capacity: int, threads: int = 1) -> None:
        """Start accepting requests: at most `capacity` at a time, run by `threads` threads."""
        self._capacity, self._round_robin = capacity, RoundRobin(threads)

    def is_only_request(self) -> bool:
        """Return whether the model has no other unfinished request. Call this from a request's steps."""
        return len(self._round_robin) <= 1

    def execute(self, requests: list[Any]) -> None:
        """Queue Triton's requests and return immediately."""
        for request in requests:
            reply = request.get_response_sender()
            try:
                self._accept(request, reply)
            except Exception as error:
                _fail(request.request_id(), reply, error)

    def finalize(self) -> None:
        """Stop all work. Triton calls this method before it unloads the model."""
        self._round_robin.stop()

    def _accept(self, request: Any, reply: Any) -> None:
        if request_parameters(request).get("probe"):
            reply.send(flags=FINAL)
            return
        if len(self._round_robin) >= self._capacity:
            raise QueueFull
        self._round_robin.add(_Work(self.responses(request), reply, request.request_id()))


class _Work:
    """A request in progress: its iterator of responses, and Triton's response sender."""

    def __init__(self, responses: Iterator[Any], reply: Any, request_id: str):
        self._responses, self._reply, self._request_id = responses, reply, request_id
        self.is_cancelled = reply.is_cancelled

    def steps(self) -> Iterator[object]:
        for response in self._responses:
            if response is not None and response is not IDLE:
                self._reply.send(response)
            yield response if response is IDLE else None
        self._reply.send(flags=FINAL)

    def fail(self, error: BaseException) -> None:
        _fail(self._request_id, self._reply, error)

    def cancel(self) -> None:
        self._reply.send(flags=FINAL)


def _fail(request_id: str, reply: Any, error: BaseException) -> None:
    if not isinstance(error, RequestFailure):
        log.error("request %s failed", request_id, exc_info=error)
    reply.send(error_response(error), FINAL)
