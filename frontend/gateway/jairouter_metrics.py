"""The metrics under the names that JAiRouter gives them, for dashboards made for it (see docs/compatibility.md).

JAiRouter's metrics that Trident cannot report are left out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric

from frontend.metrics import SERVICES

Labels = Mapping[str, str]

_CALL_STATUSES = {"ok": "success", "failed": "failure", "overloaded": "failure"}
_BREAKER_EVENTS = {"ok": "success", "failed": "failure"}


@dataclass(frozen=True)
class _Source:
    """A source of samples: samples of Trident by their name, and the labels that JAiRouter gives them.

    `labels` returns None for a sample that is left out. Samples with equal labels are combined.
    """

    name: str
    labels: Callable[[Labels], Labels | None]
    suffix: str = ""


@dataclass(frozen=True)
class _Family:
    name: str
    type: str
    help: str
    sources: tuple[_Source, ...]
    combine: Callable[[Iterable[float]], float] = sum


def _keep(*names: str) -> Callable[[Labels], Labels]:
    return lambda labels: {name: labels[name] for name in names}


def _of_service(*names: str) -> Callable[[Labels], Labels | None]:
    """Return the function that adds the HTTP method of the services' endpoints, which is always POST."""

    def labels_of(labels: Labels) -> Labels | None:
        return {**_keep(*names)(labels), "method": "POST"} if labels["service"] in SERVICES else None

    return labels_of


def _backend(labels: Labels) -> Labels:
    return {"adapter": "triton", "instance": labels["instance"]}


def _call(labels: Labels) -> Labels | None:
    status = _CALL_STATUSES.get(labels["outcome"])
    return {**_backend(labels), "status": status} if status else None


def _breaker(labels: Labels) -> Labels:
    """Return JAiRouter's label for a circuit breaker: `service`, whose value is the instance."""
    return {"service": labels["instance"]}


def _breaker_result(labels: Labels) -> Labels | None:
    event = _BREAKER_EVENTS.get(labels["outcome"])
    return {**_breaker(labels), "event": event} if event else None


_FAMILIES = (
    _Family(
        "jairouter_requests",
        "counter",
        "Total number of requests",
        (_Source("trident_requests_total", _of_service("service", "status"), "_total"),),
    ),
    _Family(
        "jairouter_request_duration_seconds",
        "histogram",
        "Request duration in seconds",
        (
            _Source("trident_request_seconds_bucket", _of_service("service", "le"), "_bucket"),
            _Source("trident_request_seconds_sum", _of_service("service"), "_sum"),
            _Source("trident_request_seconds_count", _of_service("service"), "_count"),
        ),
    ),
    _Family(
        "jairouter_request_size_bytes",
        "summary",
        "Request size in bytes",
        (
            _Source("trident_request_bytes_total", _keep("service"), "_sum"),
            _Source("trident_requests_total", _keep("service"), "_count"),
        ),
    ),
    _Family(
        "jairouter_response_size_bytes",
        "summary",
        "Response size in bytes",
        (
            _Source("trident_response_bytes_total", _keep("service"), "_sum"),
            _Source("trident_requests_total", _keep("service"), "_count"),
        ),
    ),
    _Family(
        "jairouter_backend_calls",
        "counter",
        "Total number of backend calls",
        (_Source("trident_instance_requests_total", _call, "_total"),),
    ),
    _Family(
        "jairouter_backend_health",
        "gauge",
        "Backend health status (1 healthy, 0 unhealthy)",
        (_Source("trident_instance_up", _backend),),
        min,
    ),
    _Family(
        "jairouter_loadbalancer_selections",
        "counter",
        "Total number of load balancer selections",
        (_Source("trident_balancer_choices_total", _keep("service", "strategy", "instance"), "_total"),),
    ),
    _Family(
        "jairouter_circuit_breaker_state",
        "gauge",
        "Circuit breaker state (0 closed, 1 open, 2 half-open)",
        (_Source("trident_breaker_state", _breaker),),
        max,
    ),
    _Family(
        "jairouter_circuit_breaker_events",
        "counter",
        "Total number of circuit breaker events",
        (
            _Source(
                "trident_breaker_transitions_total",
                lambda labels: {**_breaker(labels), "event": "state_change"},
                "_total",
            ),
            _Source("trident_instance_requests_total", _breaker_result, "_total"),
        ),
    ),
)


def translate(metrics: Iterable[Metric]) -> list[Metric]:
    """Return those of JAiRouter's metrics that `metrics`, Trident's own, contain."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for metric in metrics:
        for sample in metric.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return [found for family in _FAMILIES if (found := _translate(family, samples)).samples]


def _translate(family: _Family, samples: Mapping[str, list[tuple[Labels, float]]]) -> Metric:
    values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for source in family.sources:
        for labels, value in samples.get(source.name, ()):
            if (translated := source.labels(labels)) is not None:
                values.setdefault((family.name + source.suffix, tuple(translated.items())), []).append(value)
    metric = Metric(family.name, family.help, family.type)
    for (name, labels_of), found in values.items():
        metric.add_sample(name, dict(labels_of), family.combine(found))
    return metric
