"""POST /shutdown: stops Trident, as in AHA's API (see docs/compatibility.md)."""

import sys

from flask import Blueprint, Response

from frontend.errors import Forbidden
from frontend.http.authentication import api_key
from frontend.http.origins import is_local_program
from frontend.http.respond import json_response
from frontend.services import services

blueprint = Blueprint("shutdown", __name__)

_FORBIDDEN = "Remote shutdown not allowed. Use --allow-remote-shutdown flag to enable (not recommended)."


@blueprint.post("/shutdown")
def shut_down() -> Response:
    """Stop accepting requests, give running requests `drain_seconds` to finish, then stop Triton and exit.

    A Triton that Trident did not start keeps running. Only programs on this machine may call this endpoint (see
    is_local_program), or with `allow_remote_shutdown` everybody, or clients with an admin key if there are keys.
    """
    allowed = services().settings.allow_remote_shutdown
    print(f"[SHUTDOWN] Shutdown requested (remote_allowed: {str(allowed).lower()})", file=sys.stderr, flush=True)
    if not services().gateway.keys.is_empty:
        key = api_key()
        allowed = allowed and key is not None and key.role == "admin"
    if not allowed and not is_local_program(services().settings):
        raise Forbidden(_FORBIDDEN, literal_body={"error": _FORBIDDEN})
    response = json_response({"message": "Shutting down..."})
    response.call_on_close(services().shut_down)
    return response
