"""Calls to models that stream their responses: one call, parallel calls, and the choices of one conversation."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import gevent
import orjson
from flask import request
from gevent.queue import Empty, SimpleQueue

from frontend.access_log import request_id
from frontend.caller import client_address
from frontend.errors import APIError, EngineFailure
from frontend.http.respond import DisconnectWatcher
from frontend.http.timing import timing
from frontend.services import services
from frontend.triton.model import Model
from frontend.triton.native import ModelCall
from frontend.triton.routed_call import RoutedCall
from frontend.triton.status import error_from_grpc
from frontend.triton.tensors import Value

MAX_CALL_SECONDS = 86_400.0
"""The timeout of calls that may take a long time, such as transcription.

In such a call, the setting `request_timeout` limits only the wait for each response, not the whole call (see the
argument `response_timeout` of ResponseStream).
"""

HEARTBEAT_SECONDS = 1.0
_GRACE_SECONDS = 0.5
_NO_NAMES: Mapping[str | None, str] = {}

Received = TypeVar("Received")


def start_call(
    model: Model, inputs: Mapping[str, Value], *, timeout: float = MAX_CALL_SECONDS, whole: bool = False, **options: Any
) -> RoutedCall:
    """Start a call to a model that streams responses. Raises APIError.

    `timeout` is the maximum time in seconds until the last response. `whole` is whether the HTTP response begins only
    after the last response of the model. `options` are further options of Router.stream.
    """
    return services().router.stream(
        model,
        inputs,
        request_id=request_id(),
        timeout=timeout,
        address=client_address(),
        whole=whole,
        **options,
    )


class ResponseStream:
    """The responses of `call`. The response that has the output named `last` is the last one.

    If the client disconnects, the call is cancelled. The constructor waits for the first response, so that an error
    before this response can still set the HTTP status. `response_timeout` is the maximum wait in seconds for each
    response; if it is None, only the timeout of the whole call applies. `field_names` maps field names in the backend's
    errors to the names of the request fields. `whole` is whether the call was started so that it returns the first
    response when all have arrived: the constructor does not wait for all of them. The constructor raises APIError.
    """

    def __init__(
        self,
        call: ModelCall,
        last: str,
        response_timeout: float | None = None,
        field_names: Mapping[str | None, str] = _NO_NAMES,
        whole: bool = False,
    ):
        self._call, self._last, self._response_timeout, self._field_names = call, last, response_timeout, field_names
        self._over = False
        self._timing = timing()
        self._watcher = DisconnectWatcher(request.environ, self._cancel)
        self._first: dict[str, Any] | None = None
        try:
            if whole:
                self._receive(call.wait, response_timeout)
            else:
                self._first = self._receive(call.next, response_timeout)
                self._over = self._first is None or last in self._first
        except BaseException:
            self.close()
            raise

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]:
        """Yield all responses, then close the stream. With `heartbeat`, yield None for each second without a response.

        Raises APIError if the call fails, or if it ends before the last response.
        """
        try:
            response = self._first
            if response is None and not self._over:
                response = yield from self._next(heartbeat)
            while response is not None:
                self._over = self._last in response
                yield response
                if self._over:
                    return
                response = yield from self._next(heartbeat)
            raise EngineFailure("The model's response is incomplete")
        finally:
            self.close()

    def close(self) -> None:
        """Stop watching the client, and cancel the call if it is still running."""
        self._watcher.close()
        self._cancel()

    def _cancel(self) -> None:
        """Cancel the call, unless it has ended or has sent its last response and is about to end.

        Triton 2.51 occasionally corrupts its memory if a cancellation coincides with the end of a stream.
        """
        if not self._over:
            self._call.cancel()

    def _next(self, heartbeat: bool) -> Generator[None, None, dict[str, Any] | None]:
        deadline = time.monotonic() + self._response_timeout if self._response_timeout else float("inf")
        while heartbeat and deadline - time.monotonic() > HEARTBEAT_SECONDS:
            try:
                return self._read(self._call.next, HEARTBEAT_SECONDS)
            except TimeoutError:
                yield None
        return self._receive(self._call.next, max(deadline - time.monotonic(), 0) if self._response_timeout else None)

    def _receive(self, receive: Callable[[float | None], Received], seconds: float | None) -> Received:
        try:
            return self._read(receive, seconds)
        except TimeoutError:
            raise error_from_grpc("DEADLINE_EXCEEDED", "") from None

    def _read(self, receive: Callable[[float | None], Received], seconds: float | None) -> Received:
        started = time.monotonic()
        try:
            return receive(seconds)
        except APIError as error:
            self._over = True  # nothing follows an error
            error.rename_field(self._field_names.get(error.param, error.param))
            raise
        finally:
            waited = self._call.take_queue_seconds()
            self._timing.queue += waited
            self._timing.engine += max(0.0, time.monotonic() - started - waited)


def start_all(
    starters: Sequence[Callable[[], ModelCall]],
    last: str,
    error_context: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
    whole: bool = False,
) -> list[ResponseStream]:
    """Start all calls, wait for the first response of every call, and return the calls' streams.

    If a call fails, cancel the other calls. The start of call number `index`, and the wait for its first response, run
    in the context manager `error_context(index)`, which may change the errors. `whole`: see ResponseStream. Raises
    APIError.
    """
    calls: deque[ModelCall] = deque()
    streams: list[ResponseStream] = []
    try:
        for index, start in enumerate(starters):
            with error_context(index):
                calls.append(start())
        while calls:
            with error_context(len(streams)):
                streams.append(ResponseStream(calls.popleft(), last, whole=whole))
    except BaseException:
        for stream in streams:
            stream.close()
        cancel_all(calls, last)
        raise
    return streams


def cancel_all(calls: Iterable[ModelCall], last: str) -> None:
    """Cancel calls whose responses have not been read, except calls that are about to end (see ResponseStream._cancel).

    Waits up to 0.5 s in total for the first responses. A call is not cancelled if its first response is an error or is
    also its last response. Errors are common here: if one call has failed, the others often fail too.
    """
    deadline = time.monotonic() + _GRACE_SECONDS
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


class ResponseSource(Protocol):
    """A source of the responses of one choice: a ResponseStream, or several calls one after another."""

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]: ...
    def close(self) -> None: ...


class Choices:
    """The responses of `count` choices.

    `start(indices)` starts the choices with these indices, and waits for the first response of each choice. Choice 0 is
    started before the others. After its first response, the prompt is in the engine's prefix cache, so the engine does
    not compute the prompt again for the other choices. The constructor raises APIError.
    """

    def __init__(self, start: Callable[[Sequence[int]], Sequence[ResponseSource]], count: int):
        self._streams = list(start([0]))
        if count > 1:
            try:
                self._streams += start(range(1, count))
            except BaseException:
                self.close()
                raise

    def responses(self, heartbeat: bool = False) -> Iterator[tuple[int, dict[str, Any]] | None]:
        """Yield each response with its choice's index. With `heartbeat`, yield None for a second without a response."""
        try:
            if len(self._streams) == 1:
                for response in self._streams[0].responses(heartbeat):
                    yield None if response is None else (0, response)
            else:
                yield from self._merged(heartbeat)
        finally:
            self.close()

    def close(self) -> None:
        """Cancel all calls that are still running."""
        for stream in self._streams:
            stream.close()

    def _merged(self, heartbeat: bool) -> Iterator[tuple[int, dict[str, Any]] | None]:
        arrived: SimpleQueue[tuple[int, dict[str, Any] | BaseException | None]] = SimpleQueue()
        readers = [gevent.spawn(_read, index, stream, arrived) for index, stream in enumerate(self._streams)]
        open_streams = len(readers)
        try:
            while open_streams:
                try:
                    index, response = arrived.get(timeout=HEARTBEAT_SECONDS if heartbeat else None)
                except Empty:
                    yield None
                    continue
                if isinstance(response, BaseException):
                    raise response
                if response is None:
                    open_streams -= 1
                else:
                    yield index, response
        finally:
            gevent.killall(readers)


def _read(index: int, stream: ResponseSource, arrived: Any) -> None:
    try:
        for response in stream.responses():
            arrived.put((index, response))
        arrived.put((index, None))
    except BaseException as error:
        arrived.put((index, error))


def read_logprobs(responses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return an entry with `token`, `logprob` and `bytes` for each token, or None if no response has logprobs."""
    given = [orjson.loads(response["logprobs"]) for response in responses if "logprobs" in response]
    return [entry for entries in given for entry in entries] if given else None
