"""/api/audit: who changed what, and when."""

import sqlalchemy as sa
from flask import Blueprint, Response, request

from frontend.errors import InvalidRequest
from frontend.gateway.key_records import shown_time
from frontend.gateway.store.database import as_dict
from frontend.gateway.store.tables import AUDIT_LOG
from frontend.http.envelope import envelope
from frontend.services import services

blueprint = Blueprint("management_audit", __name__, url_prefix="/api")

_MAX_ROWS = 1000


@blueprint.get("/audit")
def list_changes() -> Response:
    """Return the newest changes, the newest first: at most `limit` (100), before the one with the ID `before`."""
    limit, before = _number("limit", 100, _MAX_ROWS), _number("before", 2**31, 2**31)
    store = services().gateway.store
    if not store.exists:
        return envelope([])
    query = sa.select(AUDIT_LOG).where(AUDIT_LOG.c.id < before).order_by(AUDIT_LOG.c.id.desc()).limit(limit)
    rows = store.read(lambda connection: list(connection.execute(query)))
    return envelope([as_dict(row) | {"at": shown_time(row.at)} for row in rows])


def _number(name: str, default: int, maximum: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isdecimal() or len(text) > 12 or not 1 <= int(text) <= maximum:
        raise InvalidRequest(f"'{name}' must be an integer from 1 to {maximum}", param=name)
    return int(text)
