"""Every error the API answers with, and the only handlers that turn one into a response.

APIError
├── InvalidRequest 400        ├── EngineFailure 500
├── Forbidden 403             ├── Unavailable 503
├── NoSuchPath 404            │   └── Overloaded 503
├── ModelNotFound 404         ├── DeadlineExceeded 504
├── WrongMethod 405           └── ClientClosedRequest 499 (nobody is left to read it; it is for the log)
└── PayloadTooLarge 413
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from frontend.access_log import log_fields

log = logging.getLogger(__name__)


class APIError(Exception):
    """An error with OpenAI's four fields and an HTTP status."""

    status = 500
    type = "api_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        literal_body: dict[str, Any] | None = None,
    ):
        super().__init__(message)
        self.param = param
        self.code = code or type(self).code
        self._literal_body = literal_body
        self.row: int | None = None
        """In a batch, which row it is about."""

    def body(self) -> dict[str, Any]:
        """Return the response body, in OpenAI's shape unless another one is prescribed for this error."""
        return self._literal_body or {
            "error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        }

    def log_fields(self) -> dict[str, Any]:
        """Return what the access log says of an answer that fails with this after its status has gone out."""
        return {"status": self.status, "error": self.log_text()}

    def log_text(self) -> str:
        """Return the code, and the field or what happened. A message to the client may quote what was sent."""
        return f"{self.code}: {self if self.status >= 500 else self.param}"


class InvalidRequest(APIError):
    """The request is wrong; `param` names the field."""

    status, type, code = 400, "invalid_request_error", "invalid_value"


class Forbidden(APIError):
    """The caller may not do this."""

    status, type, code = 403, "permission_error", "forbidden"


class NoSuchPath(APIError):
    """There is no such endpoint."""

    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(APIError):
    """No model, and no alias, has this name."""

    status, type, code = 404, "invalid_request_error", "model_not_found"

    def __init__(self, name: str):
        super().__init__(f"The model '{name}' does not exist", param="model")


class WrongMethod(APIError):
    """The endpoint is there, but not for this method."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class PayloadTooLarge(APIError):
    """A body, a file or a string is over its limit."""

    status, type, code = 413, "invalid_request_error", "payload_too_large"


class EngineFailure(APIError):
    """The model failed on this request."""

    status, type, code = 500, "api_error", "engine_failure"


class Unavailable(APIError):
    """The model, or Triton, cannot answer now."""

    status, type, code = 503, "service_unavailable", "model_not_loaded"


class Overloaded(Unavailable):
    """The model's queue is full."""

    type, code = "overloaded_error", "overloaded"


class DeadlineExceeded(APIError):
    """The request took longer than it may."""

    status, type, code = 504, "timeout_error", "deadline_exceeded"


class ClientClosedRequest(APIError):
    """The client went away before it had its answer."""

    status, type, code = 499, "invalid_request_error", "client_closed_request"


@contextmanager
def located(rename: Callable[[str | None], str | None]) -> Iterator[None]:
    """Have an APIError name the request's field: `rename` maps the name that the code within the block knows."""
    try:
        yield
    except APIError as error:
        error.param = rename(error.param)
        raise


def file_too_large(limit: int, param: str | None = None) -> PayloadTooLarge:
    """Return the error for one file, uploaded or named, over the limit."""
    return PayloadTooLarge(f"The file is over the limit of {limit} bytes", param=param)


def register_error_handlers(app: Flask) -> None:
    """Make `app` answer every failure in the one shape."""
    app.register_error_handler(APIError, _respond)
    app.register_error_handler(HTTPException, _respond_http)
    app.register_error_handler(Exception, _respond_unforeseen)


def _respond(error: APIError) -> Response:
    response = Response(orjson.dumps(error.body()), error.status, content_type="application/json")
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = "1"
    log_fields()["error"] = error.log_text()
    return response


def _respond_http(error: HTTPException) -> Response:
    """Translate what Flask itself raises."""
    if isinstance(error, NotFound):
        return _respond(NoSuchPath(f"There is no {request.path}"))
    if isinstance(error, MethodNotAllowed):
        response = _respond(WrongMethod(f"{request.path} does not take {request.method}"))
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    if isinstance(error, RequestEntityTooLarge):
        return _respond(PayloadTooLarge("The request body is too large"))
    return _respond(InvalidRequest(error.description or error.name))


def _respond_unforeseen(error: Exception) -> Response:
    log.exception("unforeseen error", exc_info=error)
    return _respond(EngineFailure("Internal error; the log of the server tells more", code="internal_error"))
