"""/api/monitoring: the state of instances, balancers, limits and breakers. The responses are bare objects.

The counts are sums over all frontend processes; the states are those of the process that responds.
"""

import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import gevent
from flask import Blueprint, Response, request

from frontend.endpoints.management.changes import normal_id
from frontend.endpoints.management.instances import require_known
from frontend.endpoints.management.limits import limit_rows
from frontend.errors import InvalidRequest, NotFound
from frontend.gateway import exposition
from frontend.gateway.configuration import Instance as Configured
from frontend.gateway.usage import read_errors
from frontend.http.authentication import actor
from frontend.http.respond import json_response
from frontend.services import services
from frontend.triton.instance import Instance

blueprint = Blueprint("management_monitoring", __name__, url_prefix="/api/monitoring")

_MAX_ERRORS = 1000
_CATEGORIES = ["requests", "instances", "limits", "breakers", "tokens"]


@blueprint.get("/config")
def get_config() -> Response:
    """Return what is measured. It cannot be changed."""
    return json_response(
        {
            "enabled": True,
            "prefix": "trident",
            "collectionInterval": "PT0S",
            "enabledCategories": _CATEGORIES,
            "customTags": {},
            "sampling": {},
            "performance": {},
        }
    )


@blueprint.get("/config/snapshot")
def get_config_snapshot() -> Response:
    """Return what is measured, with the time."""
    return json_response({"timestamp": _iso(time.time()), "enabled": True, "prefix": "trident"})


@blueprint.get("/health")
def get_health() -> Response:
    """Return whether the instances respond."""
    instances = services().router.instances()
    up = sum(each.is_up for each in instances)
    healthy = bool(instances) and up == len(instances)
    details = {"totalInstances": len(instances), "healthyInstances": up}
    return json_response({"status": "UP" if healthy else "DOWN", "healthy": healthy, "details": details})


@blueprint.get("/overview")
def get_overview() -> Response:
    """Return the numbers of requests and instances, by service."""
    counts = _instance_counts()
    rows: dict[str, Any] = {}
    for service in services().router.services():
        instances = [each for each in services().router.instances() if each.service == service]
        if instances:
            totals = [counts[each.id] for each in instances]
            rows[service] = {
                "instances": len(instances),
                "healthyInstances": sum(each.is_up for each in instances),
                "activeRequests": sum(each.active for each in instances),
                "totalRequests": sum(sum(total.values()) for total in totals),
                "failedRequests": sum(total["failed"] for total in totals),
            }
    return json_response({"version": services().gateway.version, "services": rows})


@blueprint.get("/instances")
def get_instances() -> Response:
    """Return the state of each instance."""
    counts = _instance_counts()
    rows: dict[str, Any] = defaultdict(lambda: {"instances": []})
    for instance in services().router.instances():
        count = counts[instance.id]
        total, failed = sum(count.values()), count["failed"]
        rows[instance.service]["instances"].append(
            {
                "id": instance.id,
                "url": instance.base_url,
                "status": "HEALTHY" if instance.is_up else "UNHEALTHY",
                "lastHealthCheck": instance.last_check(),
                "responseTime": None if instance.probe_seconds is None else round(instance.probe_seconds * 1000, 1),
                "successRate": round((total - failed) / total, 4) if total else None,
                "requestCount": total,
                "errorCount": failed,
                "activeRequests": instance.active,
                "circuitBreakerState": instance.breaker_state.upper(),
                "weight": instance.configured_weight,
                "enabled": instance.enabled,
                "draining": instance.is_draining,
                "rejection": instance.rejection or None,
            }
        )
    live = {each.id for each in services().router.instances()}
    for entry in services().gateway.current().instances:
        if entry.name and entry.id not in live:  # its Triton has never responded
            rows[entry.service or "other"]["instances"].append(_missing(entry))
    return json_response({"services": rows})


@blueprint.get("/load-balancer")
def get_load_balancer() -> Response:
    """Return the strategy of each service, and how the requests were spread."""
    families = _families()
    counts = _instance_counts(families)
    rows: dict[str, Any] = {}
    for service in services().router.services():
        instances = [each for each in services().router.instances() if each.service == service]
        if not instances:
            continue
        totals = {each.id: sum(counts[each.id].values()) for each in instances}
        total = sum(totals.values())
        rows[service] = {
            "strategy": services().router.strategy(service),
            "totalRequests": total,
            "distribution": {
                each.id: {
                    "requests": totals[each.id],
                    "percentage": round(100 * totals[each.id] / total, 2) if total else 0.0,
                    # The times are measured for each model, so they say nothing about one of several instances.
                    "avgResponseTime": _mean_milliseconds(families, service, each.model.id)
                    if len([other for other in instances if other.model.id == each.model.id]) == 1
                    else None,
                }
                for each in instances
            },
        }
    return json_response({"services": rows})


@blueprint.get("/rate-limit")
def get_rate_limit() -> Response:
    """Return the remainder of the limits, and the decisions so far."""
    decisions: dict[str, dict[str, int]] = defaultdict(dict)
    for labels, value in _samples(_families(), "trident_limit_decisions_total"):
        decisions[labels["scope"]][labels["decision"]] = decisions[labels["scope"]].get(labels["decision"], 0) + value
    client = services().gateway.configuration.clientRateLimit
    rows = limit_rows()
    return json_response(
        {
            "globalLimit": [row for row in rows if row["scope"] == "global"],
            "limits": rows,
            "clientLimits": client.as_dict() if client else None,
            "decisions": decisions,
        }
    )


@blueprint.get("/circuit-breaker")
def get_circuit_breakers() -> Response:
    """Return the circuit breaker of each instance."""
    return json_response([_breaker(each) for each in services().router.instances()])


@blueprint.get("/circuit-breaker/stats")
def get_circuit_breaker_stats() -> Response:
    """Return the state and the counts of the breaker of `?instanceId=`, or of all together."""
    identifier, counts = request.args.get("instanceId"), _instance_counts()
    instances = [each for each in services().router.instances() if identifier in (None, each.id)]
    if identifier and not instances:
        raise NotFound(f"There is no instance '{identifier[:300]}'", param="instanceId", code="instance_not_found")
    states = [each.breaker_state for each in instances]
    worst = next((state for state in ("open", "half_open") if state in states), "closed")
    total = sum(sum(counts[each.id].values()) for each in instances)
    failed = sum(counts[each.id]["failed"] for each in instances)
    return json_response(
        {
            "state": worst.upper(),
            "failureCount": failed,
            "successCount": total - failed,
            "requestCount": total,
            "failureRate": round(failed / total, 4) if total else 0.0,
        }
    )


@blueprint.post("/circuit-breaker/force-open")
def force_open() -> Response:
    """Open the breaker of `?instanceId=`, until it is closed."""
    return _command("breaker.force-open")


@blueprint.post("/circuit-breaker/force-close")
def force_close() -> Response:
    """Close the breaker of `?instanceId=`."""
    return _command("breaker.reset")


@blueprint.get("/errors")
def list_errors() -> Response:
    """Return the newest failed requests, the newest first: at most `limit` (100). They do not contain prompts."""
    text = request.args.get("limit", "100")
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= _MAX_ERRORS:
        raise InvalidRequest(f"'limit' must be an integer from 1 to {_MAX_ERRORS}", param="limit")
    rows = read_errors(services().gateway.store, int(text))
    found = [
        {
            "timestamp": _iso(row["at"]),
            "requestId": row["request_id"],
            "service": row["service"],
            "model": row["model"],
            "keyId": row["key_id"],
            "status": row["status"],
            "error": row["error"],
        }
        for row in rows
    ]
    return json_response({"errors": found})


@blueprint.get("/errors/stats")
def get_error_stats() -> Response:
    """Return the numbers of failed requests by status, since the start."""
    found: dict[str, int] = defaultdict(int)
    for labels, value in _samples(_families(), "trident_requests_total"):
        if int(labels["status"]) >= 400:
            found[labels["status"]] += value
    return json_response({"totalErrors": sum(found.values()), "errorsByStatus": found})


def _missing(entry: Configured) -> dict[str, Any]:
    """Return the state of an instance whose Triton does not respond, or does not have the model."""
    return {
        "id": entry.id,
        "url": entry.config().address.base_url,
        "status": "UNHEALTHY",
        "lastHealthCheck": None,
        "responseTime": None,
        "successRate": None,
        "requestCount": 0,
        "errorCount": 0,
        "activeRequests": 0,
        "circuitBreakerState": "CLOSED",
        "weight": entry.weight,
        "enabled": entry.enabled,
        "draining": False,
        "rejection": "its Triton has not responded, or does not have the model",
    }


def _command(kind: str) -> Response:
    identifier = normal_id(request.args.get("instanceId", ""))
    if not identifier:
        raise InvalidRequest(
            "Invalid request: missing required parameter 'instanceId'", param="instanceId", code="missing_parameter"
        )
    require_known(identifier)
    services().gateway.command(kind, identifier, actor())
    return json_response([_breaker(each) for each in services().router.instances() if each.id == identifier])


def _breaker(instance: Instance) -> dict[str, Any]:
    breaker = instance.breaker
    last, retry = breaker.last_failure_at, breaker.retry_after
    return {
        "id": instance.id,
        "service": instance.service,
        "state": breaker.state.upper(),
        "failureCount": breaker.failures,
        "failureThreshold": breaker.failure_threshold,
        "successThreshold": breaker.success_threshold,
        "timeout": round(breaker.open_seconds * 1000),
        "lastFailure": None if last is None else _iso(last),
        "nextRetry": _iso(time.time() + retry) if retry else None,
    }


def _families() -> Any:
    return gevent.get_hub().threadpool.apply(exposition.collect)


def _samples(families: Any, name: str) -> list[tuple[dict[str, str], int]]:
    """Return the labels and counts of a counter."""
    return [
        (sample.labels, round(sample.value)) for family in families for sample in family.samples if sample.name == name
    ]


def _instance_counts(families: Any = None) -> dict[str, dict[str, int]]:
    """Return the requests to each instance by outcome."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for labels, value in _samples(families or _families(), "trident_instance_requests_total"):
        counts[labels["instance"]][labels["outcome"]] += value
    return counts


def _mean_milliseconds(families: Any, service: str, model: str) -> float | None:
    """Return the mean time of the requests to a model."""
    values = {"sum": 0.0, "count": 0.0}
    labels = {"service": service, "model": model}
    for family in families:
        for sample in family.samples if family.name == "trident_request_seconds" else ():
            statistic = sample.name.rpartition("_")[2]
            if statistic in values and sample.labels == labels:
                values[statistic] += sample.value
    return round(1000 * values["sum"] / values["count"], 1) if values["count"] else None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
