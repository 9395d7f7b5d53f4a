"""/api/auth/api-keys: creates, changes, rotates and deletes API keys."""

from typing import Any

from flask import Blueprint, Response, request
from pydantic import Field

from frontend.errors import InvalidRequest, NotFound
from frontend.gateway.key_records import COMPUTED, ImportRequest, KeyFields, NewKey
from frontend.gateway.keys import ApiKey
from frontend.gateway.limits.limit import Limit
from frontend.http.authentication import actor
from frontend.http.envelope import ManagementBody, envelope, read_object, validated
from frontend.services import services

blueprint = Blueprint("management_keys", __name__, url_prefix="/api/auth/api-keys")

_LIMITS = ("rateLimitPerMinute", "dailyRequestLimit", "tokensPerMinute", "dailyTokenLimit", "parallelRequests")
_MAX_OVERLAP = 30 * 86_400


class RotateRequest(ManagementBody):
    """How to rotate a key."""

    overlapSeconds: float = Field(  # noqa: N815
        0, ge=0, le=_MAX_OVERLAP, description="Seconds for which the old value stays valid."
    )


@blueprint.get("")
def list_keys() -> Response:
    """Return all keys, without their values."""
    items = services().gateway.records.all()
    expired = sum(item["expired"] for item in items)
    enabled = sum(item["enabled"] and not item["expired"] for item in items)
    disabled = sum(not item["enabled"] for item in items)
    summary = f"{len(items)} keys: {enabled} enabled, {disabled} disabled, {expired} expired"
    counts = {"total": len(items), "enabledCount": enabled, "disabledCount": disabled, "expiredCount": expired}
    return envelope({"items": items} | counts | {"summary": summary})


@blueprint.post("")
def create_key() -> Response:
    """Create a key. The response is the only one that has its value."""
    given = read_object("key")
    fields: NewKey = validated(NewKey, {name: value for name, value in given.items() if value is not None})
    _check_limits(fields.model_dump())
    created = services().gateway.records.create(fields, actor())
    services().gateway.refresh()
    return envelope(created, "Keep the key: it is not shown again", 201)


@blueprint.get("/export")
def export_keys() -> Response:
    """Return all keys without their values, in the format of the import."""
    return envelope({"mode": "MERGE", "keys": services().gateway.records.all()})


@blueprint.post("/import")
def import_keys() -> Response:
    """Import exported keys. Keys that did not exist get new values, which the response has."""
    wanted: ImportRequest = validated(ImportRequest, read_object("import"))
    records = [_imported(key, f"keys[{index}]") for index, key in enumerate(wanted.keys)]
    created = services().gateway.records.import_keys(records, wanted.mode, actor())
    services().gateway.refresh()
    return envelope({"imported": len(records), "created": created}, "Keep the keys: they are not shown again")


def _imported(fields: dict[str, Any], where: str) -> NewKey:
    """Return a key to import, without fields that only the server sets."""
    given = {name: value for name, value in fields.items() if name not in COMPUTED and value is not None}
    if "keyId" not in given:
        raise InvalidRequest(
            f"Invalid request: missing required parameter '{where}.keyId'",
            param=f"{where}.keyId",
            code="missing_parameter",
        )
    _check_limits(given)
    record: NewKey = validated(NewKey, given, where, context={"is_import": True})
    return record


@blueprint.get("/quota/overview")
def get_quota_overview() -> Response:
    """Return how much of their limits the keys have used."""
    return envelope([_quota(key) for key in _keys_with_limits()])


@blueprint.get("/quota/alerts")
def get_quota_alerts() -> Response:
    """Return the keys that have used more of a daily limit than their threshold."""
    return envelope([quota for quota in map(_quota, _keys_with_limits()) if quota["alert"]])


@blueprint.get("/<identifier>")
def get_key(identifier: str) -> Response:
    """Return a key, without its value."""
    return envelope(services().gateway.records.get(identifier))


@blueprint.put("/<identifier>")
def update_key(identifier: str) -> Response:
    """Change fields of a key."""
    changes = {name: value for name, value in read_object("key").items() if name not in COMPUTED}
    if changes.pop("keyId", identifier) != identifier:
        raise InvalidRequest("'keyId' cannot be changed", param="keyId")
    if not changes:
        raise InvalidRequest("The body has no field to change")
    _check_limits(changes)
    validated(KeyFields, {name: value for name, value in changes.items() if value is not None})
    if unknown := sorted(changes.keys() - KeyFields.model_fields.keys()):
        raise InvalidRequest(f"Unknown field '{unknown[0]}'", param=unknown[0])
    return _updated(identifier, changes)


@blueprint.delete("/<identifier>")
def delete_key(identifier: str) -> Response:
    """Delete a key. It is rejected within a second by all processes."""
    services().gateway.records.delete(identifier, actor())
    services().gateway.refresh()
    return envelope(None, f"The key {identifier} is deleted")


@blueprint.patch("/<identifier>/enable")
def enable_key(identifier: str) -> Response:
    """Make a disabled key valid again."""
    return _updated(identifier, {"enabled": True})


@blueprint.patch("/<identifier>/disable")
def disable_key(identifier: str) -> Response:
    """Make a key invalid, within a second in all processes."""
    return _updated(identifier, {"enabled": False})


@blueprint.post("/<identifier>/rotate")
def rotate_key(identifier: str) -> Response:
    """Give a key a new value. The old one stays valid for `overlapSeconds` (0)."""
    given = read_object("key") if request.content_length or request.headers.get("Transfer-Encoding") else {}
    fields: RotateRequest = validated(
        RotateRequest, {name: value for name, value in given.items() if value is not None}
    )
    return _rotated(identifier, fields.overlapSeconds)


@blueprint.post("/<identifier>/reset")
def reset_key(identifier: str) -> Response:
    """Give a key a new value. The old one is not valid any more."""
    return _rotated(identifier, 0)


@blueprint.get("/<identifier>/quota")
def get_quota(identifier: str) -> Response:
    """Return how much of its limits a key has used."""
    services().gateway.refresh()
    return envelope(_quota(services().gateway.records.get(identifier)))


@blueprint.post("/<identifier>/quota/reset")
def reset_quota(identifier: str) -> Response:
    """Forget what a key has used of its limits."""
    services().gateway.records.get(identifier)
    gate = services().gateway.gate
    services().gateway.refresh()
    limits = [limit for limit in gate.policy.key_limits(_live(identifier)) if limit.kind != "parallel"]
    gate.limiter.reset(limits)
    services().gateway.audit("quota.reset", identifier, actor())
    return envelope(None, f"What {identifier} has used is forgotten")


def _updated(identifier: str, changes: dict[str, Any]) -> Response:
    changed = services().gateway.records.update(identifier, changes, actor())
    services().gateway.refresh()
    return envelope(changed, f"The key {identifier} is changed")


def _rotated(identifier: str, overlap: float) -> Response:
    rotated = services().gateway.records.rotate(identifier, overlap, actor())
    services().gateway.refresh()
    return envelope(rotated, "Keep the key: it is not shown again")


def _check_limits(fields: dict[str, Any]) -> None:
    if any(fields.get(name) is not None for name in _LIMITS):
        services().gateway.require_shared_limits()


def _keys_with_limits() -> list[dict[str, Any]]:
    services().gateway.refresh()
    return [key for key in services().gateway.records.all() if any(key.get(name) is not None for name in _LIMITS)]


def _live(identifier: str) -> ApiKey:
    found = services().gateway.keys.get(identifier)
    if found is None:
        raise NotFound(f"There is no key '{identifier[:64]}'", param="keyId")
    return found


def _quota(key: dict[str, Any]) -> dict[str, Any]:
    """Return what a key has used of each limit."""
    gate = services().gateway.gate
    limits = gate.policy.key_limits(_live(key["keyId"]))
    levels = gate.limiter.levels(limits)
    used = {
        _name(limit): (limit, limit.capacity - level.remaining) for limit, level in zip(limits, levels, strict=True)
    }
    rows = {
        name: {"limit": limit.capacity, "used": round(amount), "remaining": round(limit.capacity - amount)}
        for name, (limit, amount) in used.items()
    }
    daily = [amount / limit.capacity for limit, amount in used.values() if limit.kind == "day"]
    return {"keyId": key["keyId"], "alert": max(daily, default=0) >= key["quotaAlertThreshold"], "limits": rows}


def _name(limit: Limit) -> str:
    if limit.kind == "parallel":
        return "parallelRequests"
    per = {"bucket": "PerMinute", "day": "PerDay"}[limit.kind]
    return f"{limit.unit}{per}"
