"""Charges each request's limits, counts its usage and records its failure, when its response ends."""

import logging
import re
from collections.abc import Callable

from flask import Flask, Response, g, request

from frontend.access_log import log_fields, request_id
from frontend.caller import key_id
from frontend.gateway.gateway import Gateway
from frontend.gateway.limits.gate import Admission
from frontend.http.timing import timing
from frontend.request_usage import request_usage

log = logging.getLogger(__name__)

_FIELD = re.compile(r"[A-Za-z_]{1,64}")


def register_accounting(app: Flask, gateway: Gateway) -> None:
    """Make `app` account for its requests to models."""

    @app.after_request
    def account(response: Response) -> Response:
        service = timing().service
        if service is None or request.method == "OPTIONS":
            return response
        admission: Admission | None = g.get("admission")
        fields, usage = log_fields(), request_usage()
        if admission:
            for name, value in admission.headers().items():
                response.headers.setdefault(name, value)
            if not response.is_streamed:
                # At once, so that the client's next request does not find this one in progress.
                admission.finish(usage, response.status_code == 429)
        # Clients that were not let in must not fill the tables.
        is_known = g.get("is_authenticated", False)
        ended = {"request_id": request_id(), "service": service, "key_id": key_id()}

        def end() -> None:
            status, model = int(fields.get("status", response.status_code)), str(fields.get("model", ""))[:200]
            if admission:
                admission.finish(usage, response.status_code == 429)
            if model:
                gateway.usage.add(ended["key_id"], model, service, status, usage)
            if status >= 400 and is_known:
                error = _error(str(fields.get("error", "")), status)
                gateway.usage.add_error(ended | {"model": model, "status": status, "error": error})

        response.call_on_close(_logged(end))
        return response


def _error(text: str, status: int) -> str:
    """Return the code of an error, and the field of the request, without text that the client has chosen."""
    code, _, path = text.partition(": ")
    field = _FIELD.match(path)
    return code[:100] if status >= 500 or not field or path == "None" else f"{code[:100]}: {field[0]}"


def _logged(end: Callable[[], None]) -> Callable[[], None]:
    """Return a function that logs a failure: an exception in it would keep other callbacks from running."""

    def call() -> None:
        try:
            end()
        except Exception:
            log.exception("a request could not be accounted for")

    return call
