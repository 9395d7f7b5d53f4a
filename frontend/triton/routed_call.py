"""A request to a decoupled model. If it is lost before its first response, it is sent again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from frontend.errors import APIError, ClientClosedRequest, EngineFailure
from frontend.triton.usage import Usage

if TYPE_CHECKING:
    from frontend.triton.router import Attempt, Lease, Router

UNFINISHED = "None"
"""What the vLLM backend reports as `finish_reason` in every response before the last one."""

# A request that is answered as a whole can be repeated until this many bytes of its responses have arrived.
_MAX_BUFFER = 16 << 20


class RoutedCall:
    """A call with any number of responses; `last` is the output that only the last response has.

    If `whole`, `next` returns the first response when all have arrived. `start(client, seconds)` starts the call.
    `cancel()` may be called from any thread.
    """

    def __init__(self, router: Router, attempt: Attempt, start: Callable[[Any, float], Any], last: str, whole: bool):
        self._router, self._attempt, self._last, self._whole = router, attempt, last, whole
        # Has the inputs, which may be large, so it is kept only as long as the request may have to be sent again.
        self._start: Callable[[Any, float], Any] | None = start
        self._collected: deque[dict[str, Any] | None] = deque()
        self._collected_bytes = 0
        self._begun = self._over = self._has_response = False
        self._usage = Usage(attempt.model, attempt.service)
        self._lease: Lease | None = None
        self._call: Any = None
        self._send(wait=False)

    def cancel(self) -> None:
        """Stop the work in Triton, unless the call has ended."""
        self._attempt.is_cancelled = True
        if self._over:
            return
        if self._call is not None:
            self._call.cancel()
        self._end(ClientClosedRequest("The client disconnected"))

    def take_queue_seconds(self) -> float:
        """Return how long the call has waited for an instance since this was last called."""
        return self._attempt.take_queue_seconds()

    def fail(self, error: APIError) -> None:
        """Make `next` handle `error`: the model has died."""
        if self._call is not None:
            self._call.fail(error)

    def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next response, or None after the last response or an error.

        Raises TimeoutError if no response arrives within `timeout` seconds, or APIError if the call fails.
        """
        while not self._over and not (self._begun and self._collected):
            self._read(timeout)
        return self._collected.popleft() if self._begun and self._collected else None

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the first response from the model. Raises like `next`."""
        while not self._collected and not self._over:
            self._read(timeout)

    def _read(self, timeout: float | None) -> None:
        if self._lease is None:
            self._send(wait=True)
        try:
            response = self._call.next(timeout)
        except APIError as error:
            self._handle(error)
        else:
            self._receive(response)

    def _send(self, wait: bool) -> None:
        """Send the request, to another instance if it cannot be sent to the first one."""
        while self._lease is None:
            lease = self._router.acquire(self._attempt, wait)
            if lease is None:
                return
            self._lease = lease
            self._router.begin(self, lease)
            assert self._start is not None  # noqa: S101
            try:
                self._call = self._start(lease.upstream.client, self._attempt.deadline - time.monotonic())
            except APIError as error:
                self._handle(error)
            except BaseException:
                self._over = True
                self._end(EngineFailure("The request could not be sent"))
                raise
            else:
                if self._attempt.is_cancelled:  # while the call was started
                    self._call.cancel()

    def _receive(self, response: dict[str, Any] | None) -> None:
        self._collected.append(response)
        if self._lease:
            self._lease.ticket.succeeded()
            self._lease.instance.responded_at = time.monotonic()
            self._has_response = True
        if response is not None:
            self._usage.add(response)
        is_last = response is None or response.get(self._last, UNFINISHED) != UNFINISHED
        if self._whole and response is not None:
            self._collected_bytes += sum(len(value) for value in response.values() if isinstance(value, bytes | str))
        if not self._whole or is_last or self._collected_bytes > _MAX_BUFFER:
            self._begin()
            self._whole = False
        if is_last:
            self._end(None)

    def _begin(self) -> None:
        self._begun, self._start = True, None

    def _handle(self, error: APIError) -> None:
        """Prepare to send the request again, or raise the error."""
        lease, begun = self._lease, self._begun
        self._end(error)
        if begun or lease is None or not self._router.may_retry(self._attempt, lease, error):
            self._over = True
            raise error
        self._call = None
        self._collected.clear()
        self._collected_bytes = 0

    def _end(self, error: APIError | None) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._usage.record(lease.instance.id)
            self._over = error is None or self._attempt.is_cancelled
            self._router.end(self, lease, error, self._has_response)
            self._has_response = False
