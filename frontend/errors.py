"""The errors that the API returns, their `type` values, and the handlers that turn exceptions into HTTP responses.

APIError
├── InvalidRequest 400        ├── InternalError 500
├── Unauthorized 401          ├── EngineFailure 500
├── Forbidden 403             ├── NotSupported 501
├── NotFound 404              ├── Unavailable 503
├── ModelNotFound 404         │   ├── Overloaded 503
├── WrongMethod 405           │   ├── ServiceUnavailable 503
├── Conflict 409              │   ├── StoreUnavailable 503
├── PayloadTooLarge 413       │   └── CircuitBreakerOpen 503
├── UnsupportedEncoding 415   ├── DeadlineExceeded 504
├── RateLimited 429           └── ClientClosedRequest 499 (only logged: the client has disconnected)
└── InvalidHTTP 400, 414, 417, 431 or 501
"""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as HTTPNotFound

from frontend.access_log import log_fields

log = logging.getLogger(__name__)

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    415: "invalid_request_error",
    417: "invalid_request_error",
    429: "rate_limit_exceeded",
    431: "invalid_request_error",
    499: "invalid_request_error",
    500: "api_error",
    501: "invalid_request_error",
    503: "service_unavailable",
    504: "timeout_error",
}
"""HTTP status → the `type` of the error, except for errors whose code is in ERROR_TYPES_BY_CODE."""

ERROR_TYPES_BY_CODE = {
    "model_not_found": "invalid_request_error",
    "overloaded": "overloaded_error",
    "circuit_breaker_open": "circuit_breaker_open",
}
"""Error code → the `type` of the error, for codes whose `type` differs from the one that ERROR_TYPES specifies."""


# Error code → the `errorCode` of the management API, where it differs from the code in upper case.
_MANAGEMENT_CODES = {
    "management_closed": "ACCESS_DENIED",
    "forbidden": "ACCESS_DENIED",
    "unknown_host": "ACCESS_DENIED",
    "invalid_value": "INVALID_PARAMETER",
    "invalid_type": "INVALID_PARAMETER",
    "invalid_json": "VALIDATION_ERROR",
    "store_unavailable": "DATABASE_ERROR",
}


class APIError(Exception):
    """An error with an HTTP status and OpenAI's four fields: `message`, `type`, `param` and `code`."""

    status = 500
    code: str = "internal_error"
    retry_after: float | None = None
    """The seconds after which the client may try again, for the header `Retry-After`."""

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
        """The index of the row (text or document) that caused the error; None if no single row did."""

    @property
    def type(self) -> str:
        """The `type` in the response body."""
        return ERROR_TYPES_BY_CODE.get(self.code) or ERROR_TYPES[self.status]

    def rename_field(self, param: str | None) -> None:
        """Set `param` to the path of another field, and rename the field in the message.

        If the message quotes the old path, that is replaced with the new path. If the message quotes the last name of
        the old path (`b` of `a[0].b`), that name is replaced with the last name of the new path.
        """
        old, self.param = self.param, param
        if old and param:
            message = str(self).replace(f"'{old}'", f"'{param}'")
            self.args = (message.replace(f"'{_last_name(old)}'", f"'{_last_name(param)}'"), *self.args[1:])

    def body(self) -> dict[str, Any]:
        """Return the response body: the constructor's `literal_body` if given, otherwise OpenAI's error object."""
        return self._literal_body or {
            "error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        }

    def log_fields(self) -> dict[str, Any]:
        """Return the access log fields for an error that occurs after the HTTP status has been sent."""
        return {"status": self.status, "error": self.log_text()}

    def log_text(self) -> str:
        """Return the error's code, followed by the message of a server error or by the `param` of a client error.

        The message of a client error is not logged because it may quote the request.
        """
        return f"{self.code}: {self if self.status >= 500 else self.param}"


class InvalidRequest(APIError):
    """The request is invalid. If one field is to blame, `param` names it."""

    status, code = 400, "invalid_value"


class Forbidden(APIError):
    """The client, or the `Host` header of its request, is not allowed."""

    status, code = 403, "forbidden"


class Unauthorized(APIError):
    """The request has no valid API key."""

    status, code = 401, "invalid_api_key"


class Conflict(APIError):
    """The change contradicts another one, or the state of the server."""

    status, code = 409, "conflict"


class RateLimited(APIError):
    """A limit of requests, tokens or parallel requests is reached."""

    status, code = 429, "rate_limit_exceeded"

    def __init__(self, message: str, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}
        """OpenAI's headers about the limits."""


class NotSupported(APIError):
    """The operation has no meaning in this server."""

    status, code = 501, "not_supported"


class NotFound(APIError):
    """The path is unknown, or it names a stored image or response that does not exist or has expired."""

    status, code = 404, "not_found"


class ModelNotFound(APIError):
    """No model has this name, ID or alias."""

    status, code = 404, "model_not_found"

    def __init__(self, name: str):
        super().__init__(f"The model '{name}' does not exist", param="model")


class WrongMethod(APIError):
    """The endpoint does not support this HTTP method."""

    status, code = 405, "method_not_allowed"


class PayloadTooLarge(APIError):
    """The request body, a file, the total of the images in a chat, or the generated output exceeds a size limit."""

    status, code = 413, "payload_too_large"


class UnsupportedEncoding(APIError):
    """The `Content-Encoding` of the request body is not supported: JSON may use gzip, deflate or zstd, forms none."""

    status, code = 415, "unsupported_encoding"


class InvalidHTTP(APIError):
    """The request is not valid HTTP; 414, 417, 431 or 501 for a URL, headers or encodings that are not supported."""

    status, code = 400, "invalid_http"

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class InternalError(APIError):
    """An unexpected error; the server log has the details."""


class EngineFailure(APIError):
    """The model failed on this request, or its configuration is faulty."""

    status, code = 500, "engine_failure"


class Unavailable(APIError):
    """The model is not loaded, or Triton or the model's engine is not running."""

    status, code = 503, "model_not_loaded"


class Overloaded(Unavailable):
    """The model's queue is full, or too many downloads are in progress."""

    code = "overloaded"
    retry_after = 1.0


class ServiceUnavailable(Unavailable):
    """No instance of the model is up."""

    code = "service_unavailable"
    retry_after = 1.0


class StoreUnavailable(Unavailable):
    """The store of keys and configuration does not respond."""

    code = "store_unavailable"
    retry_after = 1.0


class CircuitBreakerOpen(Unavailable):
    """All instances of the model have failed repeatedly, so they get no requests for a while."""

    code = "circuit_breaker_open"

    def __init__(self, message: str, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(APIError):
    """The request exceeded its time limit."""

    status, code = 504, "deadline_exceeded"


class ClientClosedRequest(APIError):
    """The client disconnected before the response was complete."""

    status, code = 499, "client_closed_request"


@contextmanager
def located(rename: Callable[[str | None], str | None]) -> Iterator[None]:
    """If the block raises an APIError, replace its `param` with `rename(param)`, the path of the request field."""
    try:
        yield
    except APIError as error:
        error.rename_field(rename(error.param))
        raise


def file_too_large(limit: int, param: str | None = None) -> PayloadTooLarge:
    """Return the error for a file of more than `limit` bytes."""
    return PayloadTooLarge(f"The file exceeds the limit of {limit:,} bytes", param=param)


def _last_name(param: str) -> str:
    """Return the last field name of a path, such as `b` for the path `a[0].b[1]`."""
    return re.sub(r"\[\d+\]", "", param).rpartition(".")[2]


def register_error_handlers(app: Flask) -> None:
    """Make `app` turn every exception, including Flask's own, into a response with the body of an APIError."""
    app.register_error_handler(APIError, _respond)
    app.register_error_handler(HTTPException, _respond_http)
    app.register_error_handler(Exception, _respond_unexpected)


def _respond(error: APIError) -> Response:
    body = _envelope(error) if request.path.startswith("/api/") else error.body()
    response = Response(orjson.dumps(body), error.status, content_type="application/json")
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, RateLimited):
        response.headers.update(error.headers)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    log_fields()["error"] = error.log_text()
    return response


def _envelope(error: APIError) -> dict[str, Any]:
    """Return the body of an error of the management API."""
    return {
        "success": False,
        "message": str(error),
        "data": {"param": error.param} if error.param else None,
        "errorCode": _MANAGEMENT_CODES.get(error.code, error.code.upper()),
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _respond_http(error: HTTPException) -> Response:
    """Return the response for an HTTP error that Flask or werkzeug raises."""
    if isinstance(error, HTTPNotFound):
        return _respond(NotFound(f"Unknown path: {request.path}"))
    if isinstance(error, MethodNotAllowed):
        response = _respond(WrongMethod(f"{request.path} does not support {request.method}"))
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    if isinstance(error, RequestEntityTooLarge):
        return _respond(PayloadTooLarge("The request body exceeds the limit of the server"))
    return _respond(InvalidRequest(error.description or error.name))


def _respond_unexpected(error: Exception) -> Response:
    log.exception("unexpected error", exc_info=error)
    return _respond(InternalError("Internal error; see the server log"))
