"""/api/loadbalancer: the strategies of load balancing."""

from collections import Counter
from typing import Any

from flask import Blueprint, Response

from frontend.endpoints.management.changes import change_configuration, instance_service, known_service, note
from frontend.endpoints.management.services import merged, without_nulls
from frontend.errors import InvalidRequest
from frontend.gateway.configuration import LoadBalance
from frontend.http.envelope import envelope, read_object, validated
from frontend.services import services
from frontend.settings import STRATEGIES

blueprint = Blueprint("management_balancing", __name__, url_prefix="/api/loadbalancer")

_ABOUT = {
    "random": "At random, by weight",
    "round-robin": "In turn, by weight",
    "least-connections": "The fewest requests in progress per weight",
    "ip-hash": "The same instance for each client address",
    "consistent-hash": "The same instance for each prompt_cache_key, or else client address",
    "prefix-affinity": "The instance that has probably cached the most of the prompt (chat)",
}


@blueprint.get("/strategies")
def list_strategies() -> Response:
    """Return the strategies."""
    return envelope([{"name": name, "description": _ABOUT[name]} for name in STRATEGIES])


@blueprint.get("/status")
def get_status() -> Response:
    """Return the strategy and the instances of each service."""
    return envelope({service: _status(service) for service in services().router.services()})


@blueprint.get("/status/<service>")
def get_service_status(service: str) -> Response:
    """Return the strategy and the instances of a service."""
    return envelope(_status(known_service(service)))


@blueprint.get("/stats")
def get_stats() -> Response:
    """Return how many services use each strategy."""
    strategies = Counter(map(services().router.strategy, services().router.services()))
    total = sum(strategies.values())
    return envelope(
        {"totalLoadBalancers": total, "validationStatus": "VALID", "strategyDistribution": dict(strategies)}
    )


@blueprint.get("/config/global")
def get_global_configuration() -> Response:
    """Return the strategy of services without one of their own."""
    return envelope({"type": "least-connections"})


@blueprint.get("/config/<service>")
def get_strategy(service: str) -> Response:
    """Return the strategy of a service."""
    return envelope(_strategy(known_service(service)))


@blueprint.put("/config/<service>")
def set_strategy(service: str) -> Response:
    """Change the strategy of a service, from the next request on."""
    name, fields = known_service(service), read_object("loadBalance")
    wanted: LoadBalance = validated(LoadBalance, without_nulls(fields))
    if wanted.type == "prefix-affinity" and name != "chat":
        raise InvalidRequest("prefix-affinity applies to chat only", param="type")

    def work(content: dict[str, Any]) -> None:
        entry = content.setdefault("services", {}).setdefault(name, {})
        entry["loadBalance"] = merged(entry.get("loadBalance", {}), fields)

    change_configuration(work, "strategy.update", name)
    return envelope(_strategy(name), note(fields, f"The strategy of {name} is changed"))


def _strategy(service: str) -> dict[str, Any]:
    entry = services().gateway.configuration.services.get(service)
    stored = entry.loadBalance.as_dict() if entry and entry.loadBalance else {}
    return {"type": services().router.strategy(service)} | stored


def _status(service: str) -> dict[str, Any]:
    of = instance_service(service)
    instances = [each for each in services().router.instances() if each.service == of]
    return {
        "strategy": services().router.strategy(service),
        "totalInstances": len(instances),
        "healthyInstances": sum(each.is_up for each in instances),
        "instances": [
            {"instanceId": each.id, "weight": each.weight, "active": each.active, "healthy": each.is_up}
            for each in instances
        ],
    }
