"""Calls to models that send many responses: one, several, and those of the choices of one conversation."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import gevent
import orjson
from flask import request
from gevent.queue import Empty, SimpleQueue

from frontend.access_log import request_id
from frontend.errors import APIError, EngineFailure
from frontend.http.respond import ClientWatch
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.native import ModelCall
from frontend.triton.registry import Model
from frontend.triton.status import error_from_grpc
from frontend.triton.tensors import Value

LONGEST_SECONDS = 86_400.0
"""The deadline of a call whose work takes long: there the time of a request counts between two responses (patience)."""

HEARTBEAT_SECONDS = 1.0
_MOMENT_SECONDS = 0.5
_NO_NAMES: Mapping[str | None, str] = {}


def start_call(
    model: Model, inputs: Mapping[str, Value], *, timeout: float = LONGEST_SECONDS, client: str | None = None
) -> Call:
    """Start a request to a model that sends many responses. `timeout` is in seconds, to the last of them.

    `client`: who asks, for models that are fair between clients.
    """
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=timeout, client=client)


class ResponseStream:
    """The responses of `call`, to the one that has the output `last`. If the client leaves, the call is cancelled.

    Waits for the first one at once, so that a failure before it keeps its status. `patience`: seconds between two of
    them; without it the call's own deadline counts. `names`: the backend's names of fields → the request's. Raises
    APIError.
    """

    def __init__(
        self,
        call: ModelCall,
        last: str,
        patience: float | None = None,
        names: Mapping[str | None, str] = _NO_NAMES,
    ):
        self._call, self._last, self._patience, self._names = call, last, patience, names
        self._over = False
        self._watch = ClientWatch(request.environ, self._cancel)
        try:
            self._first = self._wait(patience)
            self._over = self._first is None or last in self._first
        except BaseException:
            self.close()
            raise

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]:
        """Yield them all, and then close; None for each second without one if asked."""
        try:
            response = self._first
            while response is not None:
                self._over = self._last in response
                yield response
                if self._over:
                    return
                response = yield from self._next(heartbeat)
            raise EngineFailure("The model ended its answer without its end")
        finally:
            self.close()

    def close(self) -> None:
        """Stop whatever is still going on."""
        self._watch.close()
        self._cancel()

    def _cancel(self) -> None:
        """Cancel the call, unless it is about to end by itself.

        Where a cancellation meets the end of a stream, Triton 2.51 now and then corrupts its memory.
        """
        if not self._over:
            self._call.cancel()

    def _next(self, heartbeat: bool) -> Generator[None, None, dict[str, Any] | None]:
        deadline = time.monotonic() + self._patience if self._patience else float("inf")
        while heartbeat and deadline - time.monotonic() > HEARTBEAT_SECONDS:
            try:
                return self._read(HEARTBEAT_SECONDS)
            except TimeoutError:
                yield None
        return self._wait(max(deadline - time.monotonic(), 0) if self._patience else None)

    def _wait(self, seconds: float | None) -> dict[str, Any] | None:
        try:
            return self._read(seconds)
        except TimeoutError:
            raise error_from_grpc("DEADLINE_EXCEEDED", "") from None

    def _read(self, seconds: float | None) -> dict[str, Any] | None:
        try:
            return self._call.next(seconds)
        except APIError as error:
            self._over = True  # a failure is the last response
            error.param = self._names.get(error.param, error.param)
            raise


def await_all(
    begin: Sequence[Callable[[], ModelCall]],
    last: str,
    named: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> list[ResponseStream]:
    """Begin all calls, and return their answers, each with its first response. If one fails, all are stopped.

    `named(number)` is round whatever may fail of a call. Raises APIError.
    """
    calls: deque[ModelCall] = deque()
    answers: list[ResponseStream] = []
    try:
        for number, begin_one in enumerate(begin):
            with named(number):
                calls.append(begin_one())
        while calls:
            with named(len(answers)):
                answers.append(ResponseStream(calls.popleft(), last))
    except BaseException:
        for answer in answers:
            answer.close()
        cancel_all(calls, last)
        raise
    return answers


def cancel_all(calls: Iterable[ModelCall], last: str) -> None:
    """Cancel calls without a response yet, except those that end by themselves in a moment: see ResponseStream._cancel.

    What is wrong with one request is often wrong with the next.
    """
    deadline = time.monotonic() + _MOMENT_SECONDS
    for call in calls:
        try:
            response = call.next(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            call.cancel()
        except APIError:
            continue
        else:
            if response is not None and last not in response:
                call.cancel()


class Responses(Protocol):
    """Where a choice has its text from."""

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]: ...
    def close(self) -> None: ...


class Choices:
    """`count` answers, of which `start` begins some and returns them once each has its first response.

    The first one is begun alone: when it has a response its prompt is in the engine's cache, and the others need not
    compute it again. Raises APIError.
    """

    def __init__(self, start: Callable[[Sequence[int]], Sequence[Responses]], count: int):
        self._answers = list(start([0]))
        if count > 1:
            try:
                self._answers += start(range(1, count))
            except BaseException:
                self.close()
                raise

    def responses(self, heartbeat: bool = False) -> Iterator[tuple[int, dict[str, Any]] | None]:
        """Yield the responses of all, each with its choice's number; None for a second without any if asked."""
        try:
            if len(self._answers) == 1:
                for response in self._answers[0].responses(heartbeat):
                    yield None if response is None else (0, response)
            else:
                yield from self._merged(heartbeat)
        finally:
            self.close()

    def close(self) -> None:
        """Stop whatever is still going on."""
        for answer in self._answers:
            answer.close()

    def _merged(self, heartbeat: bool) -> Iterator[tuple[int, dict[str, Any]] | None]:
        arrived: SimpleQueue[tuple[int, dict[str, Any] | BaseException | None]] = SimpleQueue()
        readers = [gevent.spawn(_read, number, answer, arrived) for number, answer in enumerate(self._answers)]
        open_answers = len(readers)
        try:
            while open_answers:
                try:
                    number, response = arrived.get(timeout=HEARTBEAT_SECONDS if heartbeat else None)
                except Empty:
                    yield None
                    continue
                if isinstance(response, BaseException):
                    raise response
                if response is None:
                    open_answers -= 1
                else:
                    yield number, response
        finally:
            gevent.killall(readers)


def _read(number: int, answer: Responses, arrived: Any) -> None:
    try:
        for response in answer.responses():
            arrived.put((number, response))
        arrived.put((number, None))
    except BaseException as error:
        arrived.put((number, error))


def read_logprobs(responses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the tokens of these responses, each with `token`, `logprob` and `bytes`; None if none were told."""
    given = [orjson.loads(response["logprobs"]) for response in responses if "logprobs" in response]
    return [entry for entries in given for entry in entries] if given else None
