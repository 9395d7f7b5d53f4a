"""Converts errors from Triton and from its backends to API errors, depending on the name of their gRPC status."""

import logging
import time

import orjson

from frontend.errors import (
    APIError,
    ClientClosedRequest,
    DeadlineExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    Unavailable,
)

log = logging.getLogger(__name__)

_ERRORS: dict[str, type[APIError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "NOT_FOUND": Unavailable,
    "CANCELLED": ClientClosedRequest,
}


# What Triton's Python backend says of a model whose process has died.
_DIED = "is not healthy"
# What Triton says of a model that is not loaded, with the status NOT_FOUND or, in streams, without a status.
_NOT_LOADED = "unknown model"


class StubDied(Unavailable):
    """The process of the model's backend has died."""


_logged: dict[str, float] = {}
_REPEAT_SECONDS, _MAX_LOGGED = 60.0, 100


def error_from_backend(text: str) -> APIError:
    """Return the error that a backend describes in JSON: status, message, param, code and, in a batch, the row."""
    failure = orjson.loads(text)
    code = failure["code"]
    kind = Overloaded if code == Overloaded.code else _ERRORS.get(failure["status"], EngineFailure)
    error = kind(failure["message"], param=failure["param"], code=code)
    error.row = failure["row"]
    return error


def error_from_grpc(status: str, details: str) -> APIError:
    """Return the API error for one of Triton's own errors.

    `details` is shown to the client only if the client's request is invalid. If the model failed or is unavailable,
    `details` is logged.
    """
    kind = _ERRORS.get(status, EngineFailure)
    if _DIED in details:
        kind = StubDied
    elif _NOT_LOADED in details:
        kind = Unavailable
    if kind is DeadlineExceeded:
        return kind("The request exceeded its time limit and was stopped")
    if kind is ClientClosedRequest:
        return kind("The client disconnected")
    if kind is InvalidRequest:
        return kind(details)
    _log_once(f"Triton: {status}: {details}")
    return kind("Model not initialized" if issubclass(kind, Unavailable) else "The model failed on this request")


def _log_once(text: str) -> None:
    """Log a warning, unless the same one was logged within the last minute, as all requests to a dead Triton fail."""
    now = time.monotonic()
    if now - _logged.get(text, float("-inf")) < _REPEAT_SECONDS:
        return
    if len(_logged) >= _MAX_LOGGED:
        _logged.clear()
    _logged[text] = now
    log.warning("%s", text)
