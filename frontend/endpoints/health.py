"""GET /health reports whether the models respond.

It checks every model in the setting `models`, or every loaded model if the setting is empty.
"""

from flask import Blueprint, Response

from frontend.errors import Unavailable
from frontend.http.respond import json_response
from frontend.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def get_health() -> Response:
    """Return 200 and `{"status": "ok"}`, or 503 and the reason in AHA's format (see docs/compatibility.md)."""
    try:
        unresponsive = services().registry.unresponsive_models()
    except Unavailable as error:
        raise _unhealthy("model not initialized") from error
    if unresponsive:
        raise _unhealthy(f"not responding: {', '.join(unresponsive)}")
    return json_response({"status": "ok"})


def _unhealthy(error: str) -> Unavailable:
    return Unavailable(error, literal_body={"status": "unhealthy", "error": error})
