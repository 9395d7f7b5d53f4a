"""GET /health: whether every wanted model answers."""

from flask import Blueprint, Response, jsonify

from frontend.errors import Unavailable
from frontend.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def get_health() -> Response:
    """Answer 200 `{"status": "ok"}`, or 503 with what is wrong, in AHA's shape."""
    try:
        missing = services().registry.unanswering()
    except Unavailable:
        return _unhealthy("model not initialized")
    return _unhealthy(f"not answering: {', '.join(missing)}") if missing else jsonify(status="ok")


def _unhealthy(error: str) -> Response:
    response = jsonify(status="unhealthy", error=error)
    response.status_code = 503
    return response
