"""Paths of JAiRouter's management API that have no meaning here: 501 (see docs/compatibility.md)."""

from flask import Blueprint, Response

from frontend.errors import NotSupported

blueprint = Blueprint("management_unsupported", __name__, url_prefix="/api")

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# Few routes for many paths: each route costs time at the start.
_PATHS = (
    '/<any("token-usage", "call-history", "model-stats", "exceptions", "dashboard", "health-status"):area>',
    '/config/<any("merge", "circuit-breaker"):area>',
    '/monitoring/<any("degradation", "cache"):area>',
    "/auth/jwt",
)


def reject(rest: str = "", area: str = "") -> Response:
    """Return 501."""
    raise NotSupported("Trident has nothing that this operation could show or change; see docs/compatibility.md")


for path in _PATHS:
    for rule in (path, f"{path}/<path:rest>"):
        blueprint.add_url_rule(rule, view_func=reject, methods=_METHODS)
blueprint.add_url_rule("/monitoring/errors/reset", view_func=reject, methods=_METHODS)
blueprint.add_url_rule("/monitoring/config/<path:rest>", view_func=reject, methods=["PUT"])
