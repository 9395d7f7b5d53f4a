"""GET /health: whether every wanted model answers."""

from flask import Blueprint, Response

from frontend.errors import Unavailable
from frontend.http.respond import json_response
from frontend.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def get_health() -> Response:
    """Answer 200 `{"status": "ok"}`, or 503 with what is wrong, in AHA's shape."""
    try:
        missing = services().registry.unanswering()
    except Unavailable as error:
        raise _unhealthy("model not initialized") from error
    if missing:
        raise _unhealthy(f"not answering: {', '.join(missing)}")
    return json_response({"status": "ok"})


def _unhealthy(error: str) -> Unavailable:
    return Unavailable(error, literal_body={"status": "unhealthy", "error": error})
