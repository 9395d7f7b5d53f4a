"""POST /shutdown: stops Trident, as in AHA's API (see docs/compatibility.md)."""

import sys

from flask import Blueprint, Response, request

from frontend.errors import Forbidden
from frontend.http.origins import is_foreign_page, is_known_host, is_loopback_address
from frontend.http.respond import json_response
from frontend.services import services

blueprint = Blueprint("shutdown", __name__)

_FORBIDDEN = "Remote shutdown not allowed. Use --allow-remote-shutdown flag to enable (not recommended)."


@blueprint.post("/shutdown")
def shut_down() -> Response:
    """Stop accepting requests, give running requests `drain_seconds` to finish, then stop Triton and exit.

    A Triton that Trident did not start keeps running. Only programs on this machine may call this endpoint (see
    _is_local), unless `allow_remote_shutdown` is set.
    """
    allowed = services().settings.allow_remote_shutdown
    print(f"[SHUTDOWN] Shutdown requested (remote_allowed: {str(allowed).lower()})", file=sys.stderr, flush=True)
    if not allowed and not _is_local():
        raise Forbidden(_FORBIDDEN, literal_body={"error": _FORBIDDEN})
    response = json_response({"message": "Shutting down..."})
    response.call_on_close(services().shut_down)
    return response


def _is_local() -> bool:
    """Return whether a program on this machine sent the request.

    Return False for a request that a proxy forwarded, or that a web page of another origin sent.
    """
    is_loopback = is_loopback_address(request.remote_addr or "0.0.0.0")  # noqa: S104 - a missing address is not local
    forwarded = {"X-Forwarded-For", "Forwarded", "X-Real-IP"} & set(request.headers.keys())
    return is_loopback and not forwarded and not is_foreign_page() and is_known_host(services().settings)
