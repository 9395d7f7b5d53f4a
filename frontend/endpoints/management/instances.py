"""/api/config/instance: the instances of a service. An instance is one model at one Triton."""

from typing import Any

from flask import Blueprint, Response, request
from pydantic import Field

from frontend.endpoints.management.changes import (
    change_configuration,
    instance_service,
    known_service,
    normal_id,
    note,
    service_of_entry,
    shown_entry,
    shown_instances,
    shown_live,
    valid_instance,
    with_one_state,
)
from frontend.endpoints.management.services import merged, without_nulls
from frontend.errors import Conflict, InvalidRequest, NotFound
from frontend.gateway.configuration import CircuitBreaker, Instance, RateLimit, normalized, with_enabled
from frontend.http.authentication import actor
from frontend.http.envelope import ManagementBody, envelope, read_management_body, read_object, validated
from frontend.instance_config import parse_base_url
from frontend.services import services

blueprint = Blueprint("management_instances", __name__, url_prefix="/api")

_NOT_FOUND = "instance_not_found"
_PORTS = ("grpcPort", "metricsPort")


class InstanceCommand(ManagementBody):
    """A command for an instance."""

    instanceId: str = Field(max_length=500, description="ID of the instance: `NAME@URL`.")  # noqa: N815


@blueprint.get("/instances")
def list_all_instances() -> Response:
    """Return all instances."""
    configuration = services().gateway.current()
    names = [name for name in services().router.services() if name != "imgEdit"]
    found = [each for service in names for each in shown_instances(configuration, service)]
    return envelope(found)


@blueprint.get("/config/instance/type/<service>")
@blueprint.get("/config/instance/<service>")
def list_instances(service: str) -> Response:
    """Return the instances of a service."""
    return envelope(shown_instances(services().gateway.current(), known_service(service)))


@blueprint.get("/config/instance/info/<service>")
def get_instance(service: str) -> Response:
    """Return the instance that `modelName` and `baseUrl` name."""
    return envelope(_require(known_service(service), _named_id()))


@blueprint.post("/config/instance/add/<service>")
@blueprint.post("/config/instance/<service>")
def add_instance(service: str) -> Response:
    """Add an instance. Its Triton must respond and have the model, unless `?force=true`."""
    name, fields = known_service(service), read_object("instance")
    instance = valid_instance(fields, name, force=request.args.get("force", "").lower() == "true")

    def work(content: dict[str, Any]) -> None:
        live = {each.id for each in services().router.instances() if not each.is_draining}
        if instance.id in live or any(_id(each) == instance.id for each in content.get("instances", [])):
            raise Conflict(f"The instance '{instance.id}' exists already", code="duplicate_resource")
        content["instances"] = [*content.get("instances", []), instance.as_dict()]

    change_configuration(work, "instance.add", instance.id)
    return envelope(shown_entry(instance), note(fields, "The instance is added"), 201)


@blueprint.put("/config/instance/update/<service>")
def update_instance(service: str) -> Response:
    """Change fields of an instance: `{"instanceId": "NAME@URL", "instance": {"weight": 4}}`."""
    body = read_object("update")
    changes = body.get("instance")
    identifier = body.get("instanceId")
    if unknown := sorted(body.keys() - {"instance", "instanceId"}):
        raise InvalidRequest(f"Unknown field '{unknown[0]}'", param=unknown[0])
    if not isinstance(identifier, str):
        raise InvalidRequest("'instanceId' must be the ID of an instance", param="instanceId")
    if not isinstance(changes, dict):
        raise InvalidRequest("'instance' must be an object", param="instance")
    return _update(known_service(service), identifier, normalized(changes, "instance"), "instance.")


@blueprint.delete("/config/instance/del/<service>")
def delete_instance(service: str) -> Response:
    """Remove the instance that `modelName` and `baseUrl` name. Its requests in progress may finish."""
    return _delete(known_service(service), _named_id())


@blueprint.delete("/config/instance/<service>/<path:identifier>", merge_slashes=False)
def delete_instance_by_id(service: str, identifier: str) -> Response:
    """Remove an instance. Its requests in progress may finish."""
    return _delete(known_service(service), normal_id(identifier))


def _delete(service: str, identifier: str) -> Response:
    def work(content: dict[str, Any]) -> None:
        entry = next((each for each in content.get("instances", []) if _id(each) == identifier), None)
        if entry is None:
            _require(service, identifier)
            raise Conflict(
                f"'{identifier}' is one of all models of its Triton, so it cannot be removed alone; set 'enabled' to "
                "false instead"
            )
        if service_of_entry(entry) not in (None, instance_service(service)):
            raise _unknown(identifier, service)
        content["instances"] = [each for each in content["instances"] if each is not entry]

    change_configuration(work, "instance.delete", identifier)
    return envelope(None, "The instance is removed")


@blueprint.put("/config/instance/<service>/<path:identifier>", merge_slashes=False)
def update_instance_by_id(service: str, identifier: str) -> Response:
    """Change fields of an instance."""
    return _update(known_service(service), identifier, read_object("instance"))


@blueprint.get("/config/instance/<service>/<path:identifier>/rate-limit", merge_slashes=False)
def get_instance_limit(service: str, identifier: str) -> Response:
    """Return the limits of an instance, or null."""
    return envelope(_require(known_service(service), normal_id(identifier)).get("rateLimit"))


@blueprint.get("/config/instance/<service>/<path:identifier>/circuit-breaker", merge_slashes=False)
def get_instance_breaker(service: str, identifier: str) -> Response:
    """Return the configured circuit breaker of an instance, or null."""
    return envelope(_require(known_service(service), normal_id(identifier)).get("circuitBreaker"))


@blueprint.get("/config/instance/<service>/<path:identifier>", merge_slashes=False)
def get_instance_by_id(service: str, identifier: str) -> Response:
    """Return an instance."""
    return envelope(_require(known_service(service), normal_id(identifier)))


@blueprint.put("/config/instance/<service>/<path:identifier>/rate-limit", merge_slashes=False)
def set_instance_limit(service: str, identifier: str) -> Response:
    """Set the limits of an instance."""
    limit = read_object("rateLimit")
    validated(RateLimit, without_nulls(limit))
    return _update(known_service(service), identifier, {"rateLimit": limit})


@blueprint.put("/config/instance/<service>/<path:identifier>/circuit-breaker", merge_slashes=False)
def set_instance_breaker(service: str, identifier: str) -> Response:
    """Set the circuit breaker of an instance."""
    breaker = read_object("circuitBreaker")
    validated(CircuitBreaker, without_nulls(breaker))
    return _update(known_service(service), identifier, {"circuitBreaker": breaker})


@blueprint.post("/config/instance/<service>/<path:identifier>/circuit-breaker/reset", merge_slashes=False)
def reset_instance_breaker(service: str, identifier: str) -> Response:
    """Close the circuit breaker of an instance, in all processes."""
    identifier = normal_id(identifier)
    _require(known_service(service), identifier)
    services().gateway.command("breaker.reset", identifier, actor())
    return envelope({"instanceId": identifier}, "The circuit breaker is closed")


@blueprint.post("/config/instance/drain")
def drain_instance() -> Response:
    """Send no more requests to an instance, until it is resumed or Trident is started again."""
    return _command("instance.drain", "The instance gets no more requests")


@blueprint.post("/config/instance/resume")
def resume_instance() -> Response:
    """Send requests to a drained instance again."""
    return _command("instance.resume", "The instance gets requests again")


def _command(kind: str, done: str) -> Response:
    identifier = normal_id(read_management_body(InstanceCommand).instanceId)
    require_known(identifier)
    services().gateway.command(kind, identifier, actor())
    return envelope({"instanceId": identifier}, done)


def require_known(identifier: str) -> None:
    """Raise NotFound unless there is an instance with this ID, or the configuration has one that does not respond."""
    known = {each.id for each in services().router.instances()}
    known |= {each.id for each in services().gateway.current().instances}
    if identifier not in known:
        raise NotFound(f"There is no instance '{identifier[:300]}'", param="instanceId", code=_NOT_FOUND)


def _update(service: str, identifier: str, changes: dict[str, Any], prefix: str = "") -> Response:
    """Change an instance. One that no entry of the configuration names gets an entry."""
    identifier = normal_id(identifier)
    if unknown := sorted(changes.keys() - Instance.model_fields.keys() - {"instanceId", "status"}):
        raise InvalidRequest(f"Unknown field '{prefix}{unknown[0]}'", param=f"{prefix}{unknown[0]}")
    force = request.args.get("force", "").lower() == "true"
    result: list[Instance] = []

    def work(content: dict[str, Any]) -> None:
        entries = list(content.get("instances", []))
        index = next((index for index, each in enumerate(entries) if _id(each) == identifier), None)
        if index is None:
            entries.append(_new_entry(service, identifier))
            index = len(entries) - 1
        if service_of_entry(entries[index]) not in (None, instance_service(service)):
            raise _unknown(identifier, service)
        old = entries[index]
        given = _changes(changes, old, prefix)
        entry = merged(old, given)
        if given.get("baseUrl") not in (None, old["baseUrl"]):  # the ports are those of another Triton
            entry = {name: value for name, value in entry.items() if name not in _PORTS or given.get(name)}
        result[:] = [valid_instance(entry, service, prefix.rstrip("."), force=force, old=old)]
        others = {_id(each) for position, each in enumerate(entries) if position != index}
        if result[0].id in others:
            raise Conflict(f"The instance '{result[0].id}' exists already", code="duplicate_resource")
        entries[index] = result[0].as_dict()
        content["instances"] = entries

    change_configuration(work, "instance.update", identifier)
    return envelope(shown_entry(result[0]), note(changes, "The instance is changed"))


def _changes(changes: dict[str, Any], old: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the fields that a request changes. Raises InvalidRequest."""
    given = {name: value for name, value in changes.items() if name != "instanceId"}
    try:
        return with_enabled(with_one_state(given, old.get("enabled", True)))
    except ValueError as error:
        raise InvalidRequest(str(error), param=f"{prefix}status") from None


def _new_entry(service: str, identifier: str) -> dict[str, Any]:
    """Return an entry for an instance that the configuration does not name. Raises NotFound."""
    live = next((each for each in services().router.instances() if each.id == identifier), None)
    if live is None or live.service != instance_service(service):
        raise _unknown(identifier, service)
    return {name: value for name, value in shown_live(live).items() if name not in ("instanceId", "status")}


def _unknown(identifier: str, service: str) -> NotFound:
    return NotFound(f"There is no instance '{identifier[:300]}' of {service}", param="instanceId", code=_NOT_FOUND)


def _named_id() -> str:
    """Return the ID of the instance that the parameters `modelName` and `baseUrl` name. Raises InvalidRequest."""
    values = {name: request.args.get(name) for name in ("modelName", "baseUrl")}
    for name, value in values.items():
        if value is None:
            raise InvalidRequest(
                f"Invalid request: missing required parameter '{name}'", param=name, code="missing_parameter"
            )
    try:
        return f"{values['modelName']}@{parse_base_url(values['baseUrl']).base_url}"
    except ValueError as error:
        raise InvalidRequest(str(error).replace("base_url", "baseUrl"), param="baseUrl") from None


def _require(service: str, identifier: str) -> dict[str, Any]:
    """Return an instance as the API shows it. Raises NotFound."""
    for found in shown_instances(services().gateway.current(), service):
        if found["instanceId"] == identifier:
            return found
    raise _unknown(identifier, service)


def _id(entry: dict[str, Any]) -> str:
    return Instance.model_validate(entry).id
