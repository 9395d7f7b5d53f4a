"""Runs the rows of one HTTP request (texts, or pairs of query and document) through a batched model.

The rows are sent to the model in several small requests, so that the model can run other clients' requests in between.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flask import request

from contract.tensors import MAX_ROWS
from frontend.access_log import request_id
from frontend.caller import client_address
from frontend.errors import APIError, ClientClosedRequest, InvalidRequest
from frontend.http.respond import DisconnectWatcher
from frontend.http.timing import timing
from frontend.services import services
from frontend.triton.model import Model
from frontend.triton.routed_inference import RoutedInference

# Maximum bytes of input in a request of several rows to the model. The model needs only a fraction of a second for so
# few bytes. Other clients' requests can run in between, and a client's disconnect takes effect soon.
_MAX_BYTES = 16_384
# A text with more characters than this per token of the model's context is certainly too long for the model, so there
# is no need to tokenize the text.
_MAX_CHARACTERS_PER_TOKEN = 64
# One request runs in the model while the next one waits in the model's queue.
_MAX_IN_FLIGHT = 2

Columns = Mapping[str, Sequence[bytes]]


def infer_rows(
    model: Model, columns: Columns, parameters: Mapping[str, bool | str], params: Sequence[str]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the outputs by name, each as an array [rows, width] in the order of the rows. Raises APIError.

    `columns` maps the name of each input to one value per row. `params` are the paths of the rows in the HTTP request,
    for errors about a single row.
    """
    run = _Run(model, columns, parameters)
    watcher = DisconnectWatcher(request.environ, run.cancel)
    try:
        with services().admission.enter(model.name, _capacity(model)):
            started = time.monotonic()
            try:
                return run.result()
            finally:
                timing().queue += run.queue_seconds
                timing().engine += time.monotonic() - started - run.queue_seconds
    except InvalidRequest as error:
        if error.row is None or error.param:
            raise
        where = params[error.row]
        raise InvalidRequest(f"'{where}': {error}", param=where, code=error.code) from error
    finally:
        watcher.close()
        run.cancel()


def encode_within_limit(text: str, model: Model, truncate: bool, param: str) -> bytes:
    """Return a text in UTF-8. A text of over 64 characters per token of the model's context is too long.

    With `truncate`, a text that is too long is cut to the limit. Without it, such a text raises InvalidRequest, which
    names `param`.
    """
    max_tokens = model.int_parameter("context_length")
    limit = max_tokens * _MAX_CHARACTERS_PER_TOKEN
    if len(text) > limit and not truncate:
        raise InvalidRequest(
            f"'{param}': This model's maximum context length is {max_tokens} tokens, but the input has {len(text)} "
            f"characters. Set 'truncate' to true to truncate it.",
            param=param,
            code="context_length_exceeded",
        )
    return text[:limit].encode()


def _capacity(model: Model) -> int:
    """Return how many requests this process may have in progress at all instances of a model."""
    limit = model.int_parameter("queue_size") * services().router.capacity(model)
    return max(1, limit // services().settings.workers)


class _Run:
    def __init__(self, model: Model, columns: Columns, parameters: Mapping[str, bool | str]):
        self._model, self._columns, self._parameters = model, columns, parameters
        self._deadline = time.monotonic() + services().settings.request_timeout
        self._pending: deque[tuple[list[int], RoutedInference]] = deque()
        self._address = client_address()
        self._cancelled = False
        self.queue_seconds = 0.0
        """How long the requests have waited for an instance."""

    def cancel(self) -> None:
        """Send no more requests, and cancel the pending ones. Triton drops requests that it has not started."""
        self._cancelled = True
        for _, inference in tuple(self._pending):
            inference.cancel()

    def result(self) -> dict[str, np.ndarray[Any, Any]]:
        sizes = [sum(map(len, row)) for row in zip(*self._columns.values(), strict=True)]
        parts: list[dict[str, Any]] = []
        order: list[int] = []
        for rows in split_rows(sizes):
            if len(self._pending) == _MAX_IN_FLIGHT:
                parts.append(self._next())
            self._start(rows)
            order += rows
        while self._pending:
            parts.append(self._next())
        positions = np.argsort(order)
        return {name: np.concatenate([part[name] for part in parts])[positions] for name in parts[0]}

    def _start(self, rows: list[int]) -> None:
        if self._cancelled:
            raise ClientClosedRequest("The client disconnected")
        inputs = {name: [column[row] for row in rows] for name, column in self._columns.items()}
        inference = services().router.infer(
            self._model,
            inputs,
            request_id=request_id(),
            timeout=self._deadline - time.monotonic(),
            parameters=self._parameters,
            address=self._address,
        )
        self._pending.append((rows, inference))
        if self._cancelled:
            inference.cancel()

    def _next(self) -> dict[str, Any]:
        rows, inference = self._pending[0]
        try:
            result = inference.result()
        except APIError as error:
            error.row = None if error.row is None else rows[error.row]
            raise
        self.queue_seconds += inference.take_queue_seconds()
        self._pending.popleft()
        return result


def split_rows(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the row indices of each request to the model. `sizes` are the sizes of the rows in bytes.

    Rows are taken from the smallest to the largest, so that rows of similar size share a request. A row that exceeds
    the byte limit gets a request of its own.
    """
    rows: list[int] = []
    total = 0
    for row in sorted(range(len(sizes)), key=sizes.__getitem__):
        if rows and (len(rows) == MAX_ROWS or total + sizes[row] > _MAX_BYTES):
            yield rows
            rows, total = [], 0
        rows.append(row)
        total += sizes[row]
    if rows:
        yield rows
