"""The face to Triton of a backend that answers each request in steps, and works for several in turn."""

import abc
import logging
from collections.abc import Iterator
from typing import Any

import triton_python_backend_utils as pb_utils

from backends.common.errors import QueueFull, RequestFailure
from backends.common.round_robin import RoundRobin
from backends.common.triton import error_response, read_parameters

log = logging.getLogger(__name__)

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


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
        if read_parameters(request).get("probe"):
            reply.send(flags=_FINAL)
            return
        if len(self._round_robin) >= self._capacity:
            raise QueueFull
        self._round_robin.add(_Work(self.responses(request), reply, request.request_id()))


class _Work:
    """A request's responses in the making, and the caller who waits for them."""

    def __init__(self, responses: Iterator[Any], reply: Any, request_id: str):
        self._responses, self._reply, self._request_id = responses, reply, request_id
        self.is_cancelled = reply.is_cancelled

    def steps(self) -> Iterator[None]:
        for response in self._responses:
            if response is not None:
                self._reply.send(response)
            yield
        self._reply.send(flags=_FINAL)

    def fail(self, error: BaseException) -> None:
        _fail(self._request_id, self._reply, error)

    def abandon(self) -> None:
        self._reply.send(flags=_FINAL)


def _fail(request_id: str, reply: Any, error: BaseException) -> None:
    if not isinstance(error, RequestFailure):
        log.error("request %s failed", request_id, exc_info=error)
    reply.send(error_response(error), _FINAL)
