"""/api/config/version: the versions of the configuration. Each change makes one."""

from typing import Any

from flask import Blueprint, Response
from pydantic import ValidationError

from frontend.endpoints.management.changes import change_configuration, shown_configuration
from frontend.errors import InvalidRequest, NotFound
from frontend.gateway.configuration import Configuration, read_configuration
from frontend.gateway.key_records import shown_time
from frontend.http.authentication import actor
from frontend.http.body import invalid_field
from frontend.http.envelope import envelope
from frontend.services import services

blueprint = Blueprint("management_versions", __name__, url_prefix="/api/config/version")


@blueprint.get("")
def list_versions() -> Response:
    """Return the numbers of the stored versions."""
    return envelope(services().gateway.versions.numbers())


@blueprint.get("/current")
def get_current_version() -> Response:
    """Return the number of the current version; 0 is that of the settings."""
    services().gateway.refresh()
    return envelope(services().gateway.version)


@blueprint.get("/info")
def list_version_details() -> Response:
    """Return the time, the actor and the comment of each stored version."""
    current = services().gateway.version
    found = [
        {
            "version": row["version"],
            "createdAt": shown_time(row["created_at"]),
            "actor": row["actor"],
            "comment": row["comment"],
            "current": row["version"] == current,
        }
        for row in services().gateway.versions.all()
    ]
    return envelope(found)


@blueprint.get("/<int:version>")
def get_version(version: int) -> Response:
    """Return the configuration of a version."""
    return envelope(shown_configuration(_configuration(version), live=False))


@blueprint.get("/compare/<int:first>/<int:second>")
def compare_versions(first: int, second: int) -> Response:
    """Return what differs between two versions: path → old and new value."""
    old, new = (_configuration(version).as_dict() for version in (first, second))
    return envelope({"from": first, "to": second, "changes": differences(old, new)})


@blueprint.get("/compare/<int:version>")
def compare_with_previous(version: int) -> Response:
    """Return what differs between a version and the one before it."""
    earlier = [number for number in services().gateway.versions.numbers() if number < version]
    return compare_versions(max(earlier, default=0), version)


@blueprint.post("/apply/<int:version>")
def apply_version(version: int) -> Response:
    """Make a new version with the content of an older one, which applies from now on."""
    return _apply(version, "version.apply")


@blueprint.post("/rollback/<int:version>")
def roll_back(version: int) -> Response:
    """Make a new version with the content of an older one, which applies from now on."""
    return _apply(version, "version.rollback")


@blueprint.delete("/<int:version>")
def delete_version(version: int) -> Response:
    """Delete a version that is not the current one."""
    if version == 0:
        raise InvalidRequest("Version 0 is that of the settings, and cannot be deleted", code="invalid_parameter")
    services().gateway.versions.delete(version, actor())
    return envelope(None, f"Version {version} is deleted")


def differences(old: Any, new: Any, path: str = "") -> list[dict[str, Any]]:
    """Return what differs between two configurations."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in sorted(old.keys() | new.keys()):
            found += differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if old == new else [{"path": path, "old": old, "new": new}]


def _apply(version: int, action: str) -> Response:
    try:
        target = _configuration(version).as_dict()
    except NotFound as error:
        raise InvalidRequest(str(error), param="version", code="invalid_parameter") from None

    def work(content: dict[str, Any]) -> None:
        content.clear()
        content.update(target)

    new = change_configuration(work, action, f"content of version {version}")
    return envelope({"version": new}, f"Version {new} has the content of version {version}, and applies")


def _configuration(version: int) -> Configuration:
    if version == 0:
        return services().gateway.of_settings()
    content = services().gateway.versions.get(version)
    try:
        return read_configuration(content)
    except ValidationError as error:
        found = invalid_field(error)
        raise InvalidRequest(f"Version {version} is not valid for this Trident: {found}", param="version") from None
