"""/api/rate-limiter: the state of the limits. The responses are bare objects, as in JAiRouter."""

from typing import Any

from flask import Blueprint, Response

from frontend.errors import APIError
from frontend.gateway.configuration import RateLimit
from frontend.gateway.limits.limit import Scope
from frontend.gateway.limits.policy import limits_of
from frontend.http.respond import json_response
from frontend.services import services

blueprint = Blueprint("management_limits", __name__, url_prefix="/api/rate-limiter")


@blueprint.get("/status")
def get_status() -> Response:
    """Return where the limits are counted, and the limits that are configured."""
    gateway = services().gateway
    return json_response(
        {
            "enabled": gateway.configuration.has_limits,
            "backend": "redis" if services().settings.redis_url else "memory",
            "healthy": getattr(gateway.gate.limiter, "is_up", True),
            "limits": limit_rows(),
        }
    )


@blueprint.get("/metrics")
def get_metrics() -> Response:
    """Return the remainder of each limit."""
    return json_response(limit_rows())


@blueprint.get("/summary")
def get_summary() -> Response:
    """Return the number of limits, and the one of which the least is left."""
    rows = limit_rows()
    tightest = max(rows, key=lambda row: row["usageRatio"], default=None)
    return json_response({"totalLimits": len(rows), "tightest": tightest})


@blueprint.get("/prometheus-info")
def get_prometheus_info() -> Response:
    """Return the name of the metric of the limits' decisions."""
    return json_response({"metrics": ["trident_limit_decisions_total"], "path": "/metrics"})


def _model_id(name: str) -> str:
    """Return the ID of a model, by which its requests are counted, or the name if it is not known now."""
    try:
        return services().registry.get(name).id
    except APIError:
        return name


def _service_entries(service: str, limit: RateLimit | None) -> list[tuple[RateLimit | None, str, Scope, str]]:
    """Return the limits of a service: one, or one for each model or instance. Those of clients are too many."""
    instances = [each for each in services().router.instances() if each.service == service]
    if limit is None or limit.scope == "client-ip":
        return []
    if limit.scope == "model":
        models = sorted({each.model.id for each in instances})
        return [(limit, f"service:{service}:model:{model}", "model", model) for model in models]
    if limit.scope == "instance":
        return [(limit, f"service:{service}:instance:{each.id}", "instance", each.id) for each in instances]
    return [(limit, f"service:{service}", "service", service)]


def limit_rows() -> list[dict[str, Any]]:
    """Return the remainder of each limit that is shared by all clients."""
    gateway = services().gateway
    configuration = gateway.configuration
    entries: list[tuple[RateLimit | None, str, Scope, str]] = [(configuration.rateLimit, "global", "global", "global")]
    for service, entry in configuration.services.items():
        entries += _service_entries(service, entry.rateLimit)
    for model, model_limit in configuration.modelRateLimits.items():
        identifier = _model_id(model)
        entries.append((model_limit, f"model:{identifier}", "model", identifier))
    entries += [(each.rateLimit, f"instance:{each.id}", "instance", each.id) for each in configuration.instances]
    rows: list[dict[str, Any]] = []
    for given, name, scope, identifier in entries:
        limits = limits_of(given, name, scope)
        for limit, level in zip(limits, gateway.gate.limiter.levels(limits), strict=True):
            rows.append(
                {
                    "service": identifier if scope == "service" else None,
                    "scope": scope,
                    "identifier": identifier,
                    "algorithm": given.algorithm if given and limit.kind in ("bucket", "window") else limit.kind,
                    "unit": limit.unit,
                    "remainingCapacity": round(level.remaining, 3),
                    "usageRatio": round(1 - level.remaining / limit.capacity, 3),
                    "capacity": limit.capacity,
                    "rate": 1 / limit.seconds if limit.kind == "bucket" else None,
                }
            )
    return rows
