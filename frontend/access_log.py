"""The access log, and the request ID, which is also passed to Triton.

The logger `access` writes one line per request, as JSON or text.
"""

import logging
import re
import time
import uuid
from typing import Any

import orjson
from flask import Flask, Response, current_app, g, has_request_context, request

log = logging.getLogger("access")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEY = re.compile(r"tr-[A-Za-z0-9_-]{20,}")
_ACCEPTABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")


def log_fields() -> dict[str, Any]:
    """Return the dict of extra fields for the current request's log line. Callers add fields to this dict.

    Outside a request, return an empty dict that is not logged.
    """
    if not has_request_context():
        return {}
    if "log_fields" not in g:
        g.log_fields = {}
    fields: dict[str, Any] = g.log_fields
    return fields


def request_id() -> str:
    """Return the current request's ID: the client's X-Request-Id if it is valid, otherwise a random one.

    A valid ID has 1 to 128 printable ASCII characters and no spaces.
    """
    if "request_id" not in g:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
    identifier: str = g.request_id
    return identifier


def register_access_log(app: Flask, log_format: str = "json") -> None:
    """Add X-Request-Id to every response of `app`, and log each request when its response ends.

    `log_format` is json or text.
    """
    app.extensions["access_log_format"] = log_format
    app.before_request(_start)
    app.after_request(_finish)


def _start() -> None:
    g.started = time.monotonic()


def _finish(response: Response) -> Response:
    started, fields, log_format = (
        g.get("started", time.monotonic()),
        log_fields(),
        current_app.extensions["access_log_format"],
    )
    line = {
        "request_id": request_id(),
        "method": request.method,
        "path": _without_keys(request.path),
        "remote": request.remote_addr,
    }
    response.headers["X-Request-Id"] = request_id()

    def write() -> None:
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        # A stream that fails later has the status of its failure in `fields`.
        log.info(_format(line | {"status": response.status_code, "ms": milliseconds} | fields, log_format))

    response.call_on_close(write)
    return response


def _without_keys(path: str) -> str:
    """Return a path without API keys, which somebody may have put there by mistake."""
    return _KEY.sub("tr-…", path) if "tr-" in path else path


def _format(line: dict[str, Any], log_format: str) -> str:
    if log_format == "json":
        return orjson.dumps(line).decode()
    head = " ".join(str(line.pop(name)) for name in ("remote", "method", "path", "status"))
    text = f"{head} {' '.join(f'{name}={value}' for name, value in line.items())}"
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)  # so that a line break in a path cannot forge a line
