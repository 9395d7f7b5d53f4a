"""The `trident instances` commands: the instances that the gateway sends requests to."""

from typing import Any
from urllib.parse import quote

import click

from trident.cli.api import api_options, require_api, show, table
from trident.cli.options import fail

_PATH = "/api/config/instance"


@click.group()
def instances() -> None:
    """Manage the instances that get requests. An instance is one model at one Triton; its ID is NAME@URL.

    \b
    Examples:
      trident instances list
      trident instances drain smollm2-135m@http://10.0.0.2:8000
    """


@instances.command("list")
@api_options
def list_instances(as_json: bool, **flags: Any) -> None:
    """List the instances and their state.

    \b
    Example:
      trident instances list
    """
    response = require_api(flags).request("GET", "/api/monitoring/instances")
    found = [each | {"service": name} for name, row in response["services"].items() for each in row["instances"]]
    rows = [
        (
            each["id"],
            each["service"],
            _state(each),
            f"{each['weight']:g}",
            each["activeRequests"],
            each["requestCount"],
            each["errorCount"],
        )
        for each in found
    ]
    show(found, as_json, table(rows, "ID", "SERVICE", "STATE", "WEIGHT", "ACTIVE", "REQUESTS", "FAILED"))


@instances.command()
@click.argument("service")
@click.argument("identifier", metavar="NAME@URL")
@click.option("--weight", type=float, default=1.0, metavar="NUMBER", help="share of the requests (1)")
@click.option("--grpc-port", type=int, metavar="PORT", help="Triton's gRPC port (default: HTTP port + 1)")
@click.option("--metrics-port", type=int, metavar="PORT", help="Triton's metrics port (default: HTTP port + 2)")
@click.option("--force", is_flag=True, help="add it even if its Triton does not respond")
@api_options
def add(
    service: str,
    identifier: str,
    weight: float,
    grpc_port: int | None,
    metrics_port: int | None,
    force: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Add an instance of a SERVICE.

    \b
    Example:
      trident instances add chat smollm2-135m@http://10.0.0.2:8000
    """
    name, _, base_url = identifier.rpartition("@")
    body = {"name": name, "baseUrl": base_url, "weight": weight, "grpcPort": grpc_port, "metricsPort": metrics_port}
    given = {key: value for key, value in body.items() if value is not None}
    query = "?force=true" if force else ""
    response = require_api(flags).request("POST", f"{_PATH}/add/{quote(service, safe='')}{query}", given)
    show(response["data"], as_json, response["message"])


@instances.command()
@click.argument("identifier", metavar="ID")
@click.option("--weight", type=float, metavar="NUMBER", help="share of the requests")
@click.option("--enable/--disable", "enabled", default=None, help="whether it gets requests")
@api_options
def update(identifier: str, weight: float | None, enabled: bool | None, as_json: bool, **flags: Any) -> None:
    """Change an instance.

    \b
    Example:
      trident instances update smollm2-135m@http://10.0.0.2:8000 --weight 2
    """
    changes = {key: value for key, value in {"weight": weight, "enabled": enabled}.items() if value is not None}
    if not changes:
        raise click.UsageError("Give --weight, --enable or --disable")
    api = require_api(flags)
    body = {"instanceId": identifier, "instance": changes}
    response = api.request("PUT", f"{_PATH}/update/{_service(api, identifier)}", body)
    show(response["data"], as_json, response["message"])


@instances.command()
@click.argument("identifier", metavar="ID")
@api_options
def remove(identifier: str, as_json: bool, **flags: Any) -> None:
    """Remove an instance. Its requests in progress may finish.

    \b
    Example:
      trident instances remove smollm2-135m@http://10.0.0.2:8000
    """
    name, _, base_url = identifier.rpartition("@")
    api = require_api(flags)
    query = f"modelName={quote(name, safe='')}&baseUrl={quote(base_url, safe='')}"
    response = api.request("DELETE", f"{_PATH}/del/{_service(api, identifier)}?{query}")
    show(response["data"], as_json, response["message"])


@instances.command()
@click.argument("identifier", metavar="ID")
@api_options
def drain(identifier: str, as_json: bool, **flags: Any) -> None:
    """Send no more requests to an instance, until it is resumed or Trident is started again.

    \b
    Example:
      trident instances drain smollm2-135m@http://10.0.0.2:8000
    """
    _command("drain", identifier, as_json, flags)


@instances.command()
@click.argument("identifier", metavar="ID")
@api_options
def resume(identifier: str, as_json: bool, **flags: Any) -> None:
    """Send requests to a drained instance again.

    \b
    Example:
      trident instances resume smollm2-135m@http://10.0.0.2:8000
    """
    _command("resume", identifier, as_json, flags)


@instances.command("reset-breaker")
@click.argument("identifier", metavar="ID")
@api_options
def reset_breaker(identifier: str, as_json: bool, **flags: Any) -> None:
    """Close the circuit breaker of an instance.

    \b
    Example:
      trident instances reset-breaker smollm2-135m@http://10.0.0.2:8000
    """
    path = f"/api/monitoring/circuit-breaker/force-close?instanceId={quote(identifier, safe='')}"
    response: Any = require_api(flags).request("POST", path)
    show(response, as_json, f"The circuit breaker of {identifier} is closed")


def _command(name: str, identifier: str, as_json: bool, flags: dict[str, Any]) -> None:
    response = require_api(flags).request("POST", f"{_PATH}/{name}", {"instanceId": identifier})
    show(response["data"], as_json, response["message"])


def _service(api: Any, identifier: str) -> str:
    services = {each["instanceId"]: str(each["service"]) for each in api.get("/api/instances")}
    if identifier not in services:
        fail(f"There is no instance '{identifier}'; see: trident instances list")
    return services[identifier]


def _state(instance: dict[str, Any]) -> str:
    if not instance["enabled"]:
        return "disabled"
    if instance["draining"]:
        return "draining"
    if instance["rejection"]:
        return "rejected"
    if instance["circuitBreakerState"] != "CLOSED":
        return f"breaker {instance['circuitBreakerState'].lower()}"
    return str(instance["status"]).lower()
