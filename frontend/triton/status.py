"""Converts errors from Triton and from its backends to API errors, depending on the name of their gRPC status."""

import logging

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
    if kind is DeadlineExceeded:
        return kind("The request exceeded its time limit and was stopped")
    if kind is ClientClosedRequest:
        return kind("The client disconnected")
    if kind is InvalidRequest:
        return kind(details)
    log.warning("Triton: %s: %s", status, details)
    return kind("Model not initialized" if kind is Unavailable else "The model failed on this request")
