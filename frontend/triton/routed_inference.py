"""A request to a batched model. If it is lost before its response, it is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from frontend import metrics
from frontend.errors import APIError, ClientClosedRequest, EngineFailure

if TYPE_CHECKING:
    from frontend.triton.router import Attempt, Lease, Router


class RoutedInference:
    """An inference with one response. `start(client, seconds)` sends it. `cancel()` may be called from any thread."""

    def __init__(self, router: Router, attempt: Attempt, start: Callable[[Any, float], Any]):
        self._router, self._attempt, self._start = router, attempt, start
        self._lease: Lease | None = None
        self._inference: Any = None
        self._send(wait=False)

    def result(self) -> dict[str, Any]:
        """Wait for the response, and return a mapping from output names to values. Raises APIError."""
        while True:
            if self._lease is None:
                self._send(wait=True)
            try:
                result: dict[str, Any] = self._inference.result()
            except APIError as error:
                self._handle(error)
            else:
                tokens = int(result["num_input_tokens"].sum())
                if self._lease:
                    self._attempt.usage.add_tokens(tokens, 0, self._lease.instance.id)
                self._end(None)
                metrics.record_tokens(self._attempt.model.id, "input", tokens)
                return result

    def cancel(self) -> None:
        """Make a pending `result` raise ClientClosedRequest."""
        self._attempt.is_cancelled = True
        if self._inference is not None:
            self._inference.cancel()
        self._end(ClientClosedRequest("The client disconnected"))

    def take_queue_seconds(self) -> float:
        """Return how long the request has waited for an instance since this was last called."""
        return self._attempt.take_queue_seconds()

    def fail(self, error: APIError) -> None:
        """Make a pending `result` handle `error`: the model has died."""
        if self._inference is not None:
            self._inference.fail(error)

    def _send(self, wait: bool) -> None:
        while self._lease is None:
            lease = self._router.acquire(self._attempt, wait)
            if lease is None:
                return
            self._lease = lease
            self._router.begin(self, lease)
            try:
                self._inference = self._start(lease.upstream.client, self._attempt.deadline - time.monotonic())
            except APIError as error:
                self._handle(error)
            except BaseException:
                self._end(EngineFailure("The request could not be sent"))
                raise
            else:
                if self._attempt.is_cancelled:  # while the request was sent
                    self._inference.cancel()

    def _handle(self, error: APIError) -> None:
        """Prepare to send the request again, or raise the error."""
        lease = self._lease
        self._end(error)
        if lease is None or not self._router.may_retry(self._attempt, lease, error):
            raise error
        self._inference = None

    def _end(self, error: APIError | None) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._router.end(self, lease, error, begun=False)
