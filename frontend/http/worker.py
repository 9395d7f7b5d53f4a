"""gunicorn's gevent worker, which answers requests that are not valid HTTP in the API's format."""

import logging
import socket
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, request
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.ggevent import GeventWorker

from frontend.errors import APIError, InternalError, InvalidHTTP

log = logging.getLogger(__name__)

# gunicorn's exceptions → the HTTP status and the message. The status of all other exceptions for clients is 400.
_ERRORS: dict[type[Exception], tuple[int, str]] = {
    LimitRequestLine: (414, "The URL is too long"),
    ExpectationFailed: (417, "The only supported value of the header Expect is 100-continue"),
    LimitRequestHeaders: (431, "The request headers are too large"),
    UnsupportedTransferCoding: (501, "The only supported Transfer-Encoding is chunked"),
}


class Worker(GeventWorker):  # type: ignore[misc]
    """The gevent worker. For errors outside the application, gunicorn itself would send an HTML page.

    It would also log the headers of invalid requests, which may contain keys.
    """

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Log an error that occurs outside the application, and send the response for it."""
        error = _api_error(exc)
        if isinstance(error, InvalidHTTP):
            log.warning("invalid request from %s: %s", addr[0] if addr else "?", type(exc).__name__)
        else:
            log.error("unexpected error", exc_info=exc)
        try:
            client.sendall(_response(error))
        except OSError:
            log.debug("the client disconnected before the error was sent")


def register_http_errors(app: Flask) -> None:
    """Make `app` respond to errors that gunicorn raises while a body is read, such as an invalid chunk."""

    def respond(error: ParseException) -> Response:
        response = app.make_response(app.handle_user_exception(_api_error(error)))
        if connection := request.environ.get("gunicorn.socket"):
            # Where the next request begins is not known. gunicorn would look for it in the rest of the body.
            response.call_on_close(partial(connection.shutdown, socket.SHUT_RDWR))
        return response

    app.register_error_handler(ParseException, respond)


def _api_error(error: BaseException) -> APIError:
    if isinstance(error, InvalidResponseHeader | InvalidResponseHeaderName):
        return InternalError("Internal error; see the server log")
    for kind, (status, message) in _ERRORS.items():
        if isinstance(error, kind):
            return InvalidHTTP(message, status)
    if isinstance(error, ParseException):
        return InvalidHTTP(f"The request is not valid HTTP: {error}"[:300], 400)
    return InternalError("Internal error; see the server log")


def _response(error: APIError) -> bytes:
    body = orjson.dumps(error.body())
    head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
    head += f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
