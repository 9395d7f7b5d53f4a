"""How the views of the management API read and change the configuration."""

from collections.abc import Callable
from typing import Any

from flask import request
from pydantic import ValidationError

from frontend.errors import Conflict, InvalidRequest, NotFound, located
from frontend.gateway.configuration import Configuration, Instance, inert_fields
from frontend.gateway.service_names import service_name
from frontend.http.authentication import actor
from frontend.http.body import invalid_field
from frontend.http.envelope import validated
from frontend.instance_config import parse_base_url
from frontend.services import services
from frontend.triton.instance import Instance as LiveInstance

Content = dict[str, Any]
_MAX_TRIES = 3


def change_configuration(work: Callable[[Content], None], action: str, comment: str = "") -> int:
    """Make a new version of the configuration that `work` has changed, and return its number.

    The client may name the version that it has seen, in the header `If-Match` or the parameter `expectedVersion`; if
    that is no longer the current one, this raises Conflict. Raises APIError if the new configuration is invalid.
    """
    gateway, expected = services().gateway, expected_version()
    for remaining in reversed(range(_MAX_TRIES)):
        gateway.refresh()
        base = gateway.newest_version
        if expected is not None and expected != base:
            raise Conflict(
                f"The configuration was changed meanwhile: the current version is {base}, not {expected}",
                param="expectedVersion",
                code="version_conflict",
            )
        content = gateway.current().as_dict()
        work(content)
        try:
            return gateway.change(base, content, actor(), action, comment)
        except ValidationError as error:
            raise invalid_field(error) from None
        except Conflict as error:
            # Another request was faster. Without an expected version, its change is the new base.
            if expected is not None or error.code != "version_conflict" or not remaining:
                raise
    raise AssertionError("unreachable")


def expected_version() -> int | None:
    """Return the version that the client has seen, if the request names one. Raises InvalidRequest."""
    text = request.headers.get("If-Match") or request.args.get("expectedVersion")
    if text is None:
        return None
    text = text.strip().removeprefix("W/").strip('"')
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest("'expectedVersion' must be the number of a version", param="expectedVersion")
    return int(text)


def known_service(name: str) -> str:
    """Return a service in any spelling. Raises NotFound."""
    try:
        return service_name(name)
    except ValueError:
        raise NotFound(f"Unknown service: {name[:50]}", param="type", code="service_not_found") from None


def note(fields: Any, done: str) -> str:
    """Return the message of a response: what was done, and which fields have no effect."""
    names = ", ".join(f"'{name}'" for name in inert_fields(fields))
    return f"{done}; {names} {'have' if ',' in names else 'has'} no effect" if names else done


def shown_configuration(configuration: Configuration, live: bool = True) -> Content:
    """Return a configuration as the API shows it: with the instances of each service.

    `live`: with all instances that there are now, not only the configured ones.
    """
    content = configuration.as_dict()
    shown: Content = {"services": {}}
    for service in services().router.services():
        entry = content.get("services", {}).get(service, {})
        found = shown_instances(configuration, service, live)
        if entry or found or live:
            strategy = {"loadBalance": {"type": services().router.strategy(service)}} if live else {}
            shown["services"][service] = strategy | entry | {"instances": found}
    rest = {name: value for name, value in content.items() if name not in ("services", "instances")}
    unnamed = [each for each in configuration.instances if each.service is None]
    if unnamed and not live:
        rest["instances"] = [shown_entry(each) for each in unnamed]
    return shown | rest


def shown_instances(configuration: Configuration, service: str, live: bool = True) -> list[Content]:
    """Return the instances of a service, sorted by ID."""
    service = instance_service(service)
    found = {each.id: shown_entry(each) for each in configuration.instances if each.service == service}
    if live:
        entries = {each.id: each for each in configuration.instances}
        for instance in services().router.instances():
            if instance.service == service:
                entry = entries.get(instance.id)
                found[instance.id] = shown_entry(entry, instance) if entry else shown_live(instance)
    return [found[identifier] for identifier in sorted(found)]


def shown_entry(entry: Instance, live: LiveInstance | None = None) -> Content:
    """Return an instance of the configuration as the API shows it."""
    status = {"status": "active" if entry.enabled else "inactive"}
    service = {"service": live.service} if live else {}
    return {"instanceId": entry.id} | entry.as_dict() | service | status


def shown_live(instance: LiveInstance) -> Content:
    """Return an instance that no entry of the configuration names as the API shows it."""
    return {
        "instanceId": instance.id,
        "name": instance.model.name,
        "baseUrl": instance.base_url,
        "weight": instance.configured_weight,
        "enabled": instance.enabled,
        "service": instance.service,
        "status": "active" if instance.enabled else "inactive",
    } | known_ports(instance.base_url)


def instance_service(service: str) -> str:
    """Return the service that instances have: models that generate images also edit them."""
    return "imgGen" if service == "imgEdit" else service


def known_ports(base_url: str) -> Content:
    """Return the ports of a Triton, if Trident uses it already."""
    for upstream in services().registry.upstreams:
        if upstream.address.base_url == base_url:
            return {"grpcPort": upstream.address.grpc_port, "metricsPort": upstream.address.metrics_port}
    return {}


def service_of_entry(entry: Content) -> str | None:
    """Return the service of an instance of the configuration. Those of the settings do not say it."""
    if entry.get("service"):
        return str(entry["service"])
    identifier = Instance.model_validate(entry).id
    live = {each.id: each.service for each in services().router.instances()}
    return live.get(identifier)


def valid_instance(
    fields: Content, service: str, prefix: str = "", *, force: bool = False, old: Content | None = None
) -> Instance:
    """Return a valid instance of a service; `old` is its entry before a change.

    If it is new, or has another name or URL, its Triton must respond and have the model, unless `force`. Raises
    InvalidRequest.
    """
    dot = f"{prefix}." if prefix else ""
    given = {name: value for name, value in fields.items() if value is not None}
    is_unnamed = old is not None and not old.get("name") and not given.get("name")
    stated = given.get("service")
    instance: Instance = validated(Instance, given if is_unnamed else {"service": service} | given, prefix)
    if not instance.name and not is_unnamed:
        raise InvalidRequest(f"'{dot}name' must be the name of a model in Triton", param=f"{dot}name")
    if stated is not None and instance.service != instance_service(service):
        raise InvalidRequest(f"'{dot}service' is not {service}", param=f"{dot}service")
    if instance.grpcPort is None:
        ports = known_ports(instance.config().address.base_url)
        instance = validated(Instance, instance.as_dict() | ports, prefix)
    known = {each.id for each in services().router.instances()}
    known |= {each.id for each in services().gateway.current().instances}
    if not force and instance.id not in known:
        with located(lambda param: f"{dot}{param}" if param else None):
            services().router.check(instance.config(), service)
    return instance


def with_one_state(fields: Content, was_enabled: bool) -> Content:
    """Return the fields of a known instance. Of `enabled` and `status`, the one that the client changed counts."""
    if not isinstance(fields.get("enabled"), bool) or fields.get("status") not in ("active", "inactive"):
        return fields
    unchanged = "enabled" if fields["enabled"] == was_enabled else "status"
    return {name: value for name, value in fields.items() if name != unchanged}


def normal_id(text: str) -> str:
    """Return the ID of an instance with the URL of Triton's HTTP server: `NAME@http://HOST:PORT`."""
    name, _, url = text.rpartition("@")
    try:
        return f"{name}@{parse_base_url(url).base_url}"
    except ValueError:
        return text
