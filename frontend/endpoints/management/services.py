"""/api/config/type: the services and their configuration."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, request

from frontend.endpoints.management.changes import (
    change_configuration,
    instance_service,
    known_service,
    normal_id,
    note,
    service_of_entry,
    shown_configuration,
    valid_instance,
    with_one_state,
)
from frontend.errors import Conflict, InvalidRequest
from frontend.gateway.configuration import Configuration, Instance, RateLimit, Service
from frontend.http.envelope import envelope, read_object, validated
from frontend.services import services
from frontend.settings import SERVICES

blueprint = Blueprint("management_services", __name__, url_prefix="/api")


@blueprint.get("/config/type")
def get_configuration() -> Response:
    """Return the current configuration, with all instances. The header `ETag` has its version."""
    gateway = services().gateway
    return _with_version(envelope(shown_configuration(gateway.current())))


@blueprint.get("/config/type/services")
@blueprint.get("/services")
def list_services() -> Response:
    """Return the names of the services."""
    return envelope(list(SERVICES))


@blueprint.get("/config/type/services/<service>")
def get_service(service: str) -> Response:
    """Return the configuration of a service. The header `ETag` has the version of the configuration."""
    return _with_version(envelope(_shown(known_service(service))))


@blueprint.post("/config/type/services/<service>")
def create_service(service: str) -> Response:
    """Configure a service that has no configuration of its own yet."""
    name, fields = known_service(service), read_object("service")
    entry, instances = _read(name, fields)

    def work(content: dict[str, Any]) -> None:
        if name in content.setdefault("services", {}):
            raise Conflict(f"The service {name} is configured already; change it with PUT", code="duplicate_resource")
        content["services"][name] = without_nulls(entry)
        known = {Instance.model_validate(each).id for each in content.get("instances", [])}
        new = [each.as_dict() for each in instances or () if each.id not in known]
        content["instances"] = [*content.get("instances", []), *new]

    change_configuration(work, "service.create", name)
    return envelope(_shown(name), note(fields, f"The service {name} is configured"), 201)


@blueprint.put("/config/type/services/<service>")
def update_service(service: str) -> Response:
    """Change the configuration of a service. Objects are merged; `instances` replaces all instances of the service."""
    name, fields = known_service(service), read_object("service")
    entry, instances = _read(name, fields)

    def work(content: dict[str, Any]) -> None:
        current = content.setdefault("services", {}).get(name, {})
        content["services"][name] = merged(current, entry)
        if instances is not None:
            content["instances"] = [*_others(content, name, instances), *(each.as_dict() for each in instances)]

    change_configuration(work, "service.update", name)
    return envelope(_shown(name), note(fields, f"The service {name} is changed"))


@blueprint.delete("/config/type/services/<service>")
def delete_service(service: str) -> Response:
    """Remove the configuration of a service and its configured instances. Its defaults apply then."""
    name = known_service(service)

    def work(content: dict[str, Any]) -> None:
        content.get("services", {}).pop(name, None)
        content["instances"] = _others(content, name, ())

    change_configuration(work, "service.delete", name)
    return envelope(None, f"The configuration of {name} is removed")


def _others(content: dict[str, Any], service: str, instances: Sequence[Instance]) -> list[dict[str, Any]]:
    """Return the instances of the configuration that are not of a service, and not among `instances`."""
    replaced, name = {each.id for each in instances}, instance_service(service)
    return [
        each
        for each in content.get("instances", [])
        if service_of_entry(each) != name and Instance.model_validate(each).id not in replaced
    ]


@blueprint.get("/config/type/<service>/models")
def list_models_of_service(service: str) -> Response:
    """Return the names of the models of a service."""
    return envelope(sorted({each["name"] for each in _shown(known_service(service))["instances"]}))


@blueprint.post("/config/type/reset")
def reset_configuration() -> Response:
    """Make a new version with the configuration of the settings."""
    settings = services().gateway.of_settings().as_dict()

    def work(content: dict[str, Any]) -> None:
        content.clear()
        content.update(settings)

    version = change_configuration(work, "config.reset")
    return envelope({"version": version}, "The configuration is that of the settings")


@blueprint.get("/config/aliases")
def get_aliases() -> Response:
    """Return the configured aliases of models, besides the built-in ones."""
    return envelope(services().gateway.current().aliases)


@blueprint.put("/config/aliases")
def set_aliases() -> Response:
    """Replace the configured aliases: alias → model, ID or task. An empty string removes a built-in alias."""
    aliases = read_object("aliases")
    validated(Configuration, {"aliases": aliases})
    change_configuration(lambda content: content.update(aliases=aliases), "aliases.update")
    return envelope(services().gateway.configuration.aliases, "The aliases are changed")


@blueprint.get("/config/default-models")
def get_default_models() -> Response:
    """Return the default models of tasks."""
    return envelope(services().gateway.configuration.defaultModels)


@blueprint.put("/config/default-models")
def set_default_models() -> Response:
    """Replace the default models: task → model, ID or alias."""
    defaults = read_object("defaultModels")
    validated(Configuration, {"defaultModels": defaults})
    for task, name in defaults.items():
        model = services().registry.get(name)
        if not model.serves(task):
            raise InvalidRequest(f"The model '{name}' does not support {task}", param=task)
    change_configuration(lambda content: content.update(defaultModels=defaults), "default-models.update")
    return envelope(services().gateway.configuration.defaultModels, "The default models are changed")


@blueprint.get("/config/rate-limits")
def get_limits() -> Response:
    """Return the limits of all requests, of each client address, and of models."""
    return envelope(_limits())


@blueprint.put("/config/rate-limits")
def set_limits() -> Response:
    """Replace the limits that are named: `rateLimit` (all requests), `clientRateLimit`, `modelRateLimits`.

    null removes a limit.
    """
    fields = read_object("limits")
    names = ("rateLimit", "clientRateLimit", "modelRateLimits")
    for name in fields:
        if name not in names:
            raise InvalidRequest(f"Unknown field '{name}'", param=name)
    given = {name: value for name, value in fields.items() if value is not None}
    validated(Configuration, given)
    for name in ("rateLimit", "clientRateLimit"):
        if name in given:
            validated(RateLimit, given[name], name)

    def work(content: dict[str, Any]) -> None:
        for name, value in fields.items():
            content.pop(name, None)
            if value is not None:
                content[name] = value

    change_configuration(work, "limits.update", ", ".join(fields))
    return envelope(_limits(), note(fields, "The limits are changed"))


def _limits() -> dict[str, Any]:
    content = services().gateway.configuration.as_dict()
    return {name: content.get(name) for name in ("rateLimit", "clientRateLimit", "modelRateLimits")}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with the fields of `new`. Objects in it are merged; null removes a field."""
    result = dict(old)
    for name, value in new.items():
        before = result.get(name)
        if value is None:
            result.pop(name, None)
        else:
            both = isinstance(before, dict) and isinstance(value, dict)
            result[name] = merged(dict(before or {}), value) if both else without_nulls(value)
    return result


def without_nulls(value: Any) -> Any:
    """Return a value without fields that are null."""
    if not isinstance(value, dict):
        return value
    return {name: without_nulls(item) for name, item in value.items() if item is not None}


def _read(service: str, fields: dict[str, Any]) -> tuple[dict[str, Any], list[Instance] | None]:
    """Return the entry of a service, and its instances if the request has them. Raises InvalidRequest."""
    given = fields.get("instances")
    if given is not None and not isinstance(given, list):
        raise InvalidRequest("'instances' must be an array", param="instances")
    entry = {name: value for name, value in fields.items() if name != "instances"}
    found: Service = validated(Service, without_nulls(entry))
    if service != "chat" and found.loadBalance and found.loadBalance.type == "prefix-affinity":
        raise InvalidRequest("prefix-affinity applies to chat only", param="loadBalance.type")
    if given is None:
        return entry, None
    force, instances = request.args.get("force", "").lower() == "true", []
    enabled = {each["instanceId"]: each["enabled"] for each in _shown(service)["instances"]}
    for index, each in enumerate(given):
        where = f"instances[{index}]"
        if not isinstance(each, dict):
            raise InvalidRequest(f"'{where}' must be an object", param=where)
        state = enabled.get(_id_of(each))
        fields_of = each if state is None else with_one_state(each, state)
        instances.append(valid_instance(fields_of, service, where, force=force))
    if len({each.id for each in instances}) < len(instances):
        raise Conflict("An instance occurs twice in 'instances'", param="instances", code="duplicate_resource")
    return entry, instances


def _id_of(fields: dict[str, Any]) -> str:
    """Return the ID of an instance in a request, as far as it has one."""
    return normal_id(f"{fields.get('name')}@{fields.get('baseUrl')}")


def _shown(service: str) -> dict[str, Any]:
    found: dict[str, Any] = shown_configuration(services().gateway.current())["services"][service]
    return found


def _with_version(response: Response) -> Response:
    response.headers["ETag"] = f'"{services().gateway.version}"'
    return response
