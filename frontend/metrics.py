"""The frontend's metrics, and the functions that record them. frontend/gateway/exposition.py renders them.

No client can create series without limit: services, outcomes and reasons are closed sets, and of all other names that
become labels, only a limited number is kept. Further names become `other`.

In production, several processes share the metrics (see frontend/metrics_folder.py). Without a metrics folder, as in
unit tests, the metrics are those of this process.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

Outcome = Literal["ok", "failed", "abandoned", "overloaded"]
"""How a request to an instance ended. `abandoned`: the client disconnected."""
ChoiceReason = Literal["affinity", "load", "only", "retry"]
BreakerState = Literal["closed", "open", "half_open"]

OTHER = "other"
SERVICES = frozenset({"chat", "embedding", "rerank", "tts", "stt", "imgGen", "imgEdit", "background", "ocr"})
BREAKER_STATES = {"closed": 0, "open": 1, "half_open": 2}
"""State of a circuit breaker → its value in `trident_breaker_state`."""

REGISTRY = CollectorRegistry()
"""The metrics of this process. With a metrics folder, read that instead: it has the metrics of all processes."""

_MAX_NAMES = 200
_MAX_NAME_LENGTH = 200
_MAX_WORDS = 30
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_BUCKETS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)

disable_created_metrics()  # type: ignore[no-untyped-call] # processes that share a folder do not have these series


_kept: list["_Names | _Children[Any]"] = []


class _Names(dict[str, str]):
    """The values of a label by the names that callers pass: the first `limit` names themselves, for others `other`."""

    def __init__(self, limit: int):
        super().__init__()
        self._limit = limit
        _kept.append(self)

    def __missing__(self, name: str) -> str:
        if len(self) >= self._limit or not 0 < len(name) <= _MAX_NAME_LENGTH or not name.isprintable():
            return OTHER
        self[name] = name
        return name

    def reset(self) -> None:
        """Forget all names."""
        self.clear()


class _Children(dict[tuple[str, ...], _Metric]):
    """The children of a metric by their labels, which must be bounded. prometheus_client's own lookup is slower."""

    def __init__(self, metric: _Metric):
        super().__init__()
        self.metric = metric
        _kept.append(self)

    def __missing__(self, labels: tuple[str, ...]) -> _Metric:
        child = self[labels] = self.metric.labels(*labels) if labels else self.metric
        return child

    def reset(self) -> None:
        """Forget all children and their values."""
        self.clear()
        self.metric.clear()


def _counter(name: str, help: str, *labels: str) -> _Children[Counter]:
    return _Children(Counter(name, help, labels, registry=REGISTRY))


def _histogram(name: str, help: str, buckets: Sequence[float], *labels: str) -> _Children[Histogram]:
    return _Children(Histogram(name, help, labels, buckets=buckets, registry=REGISTRY))


def _gauge(name: str, help: str, mode: Literal["livesum", "livemin", "livemax"], *labels: str) -> _Children[Gauge]:
    """Return a gauge. `mode` says how the values of the live processes are combined."""
    return _Children(Gauge(name, help, labels, multiprocess_mode=mode, registry=REGISTRY))


_models = _Names(_MAX_NAMES)
_instances = _Names(_MAX_NAMES)
_strategies = _Names(_MAX_WORDS)
_retry_reasons = _Names(_MAX_WORDS)

_requests = _counter("trident_requests_total", "Finished requests", "service", "model", "status")
_request_seconds = _histogram(
    "trident_request_seconds", "Time from a request to the end of its response", _REQUEST_BUCKETS, "service", "model"
)
_request_bytes = _counter("trident_request_bytes_total", "Bytes of request bodies", "service")
_response_bytes = _counter("trident_response_bytes_total", "Bytes of response bodies", "service")
_active = _gauge("trident_requests_active", "Requests in progress", "livesum", "service")
_first_token_seconds = _histogram(
    "trident_time_to_first_token_seconds",
    "Time from a request to its first output token",
    _FIRST_TOKEN_BUCKETS,
    "service",
    "model",
)
_token_seconds = _histogram(
    "trident_time_per_output_token_seconds",
    "Mean time per output token of a request after its first one",
    _TOKEN_BUCKETS,
    "service",
    "model",
)
_tokens = _counter("trident_tokens_total", "Input and output tokens", "model", "direction")
_instance_requests = _counter(
    "trident_instance_requests_total", "Finished requests to an instance", "service", "instance", "outcome"
)
_instance_active = _gauge(
    "trident_instance_active", "Requests to an instance in progress", "livesum", "service", "instance"
)
_instance_up = _gauge(
    "trident_instance_up",
    "1 if all processes consider the instance healthy, otherwise 0",
    "livemin",
    "service",
    "instance",
)
_instance_weight = _gauge("trident_instance_weight", "Weight of an instance", "livemax", "service", "instance")
_choices = _counter(
    "trident_balancer_choices_total",
    "Instances that the load balancer has chosen",
    "service",
    "strategy",
    "instance",
    "reason",
)
_retries = _counter("trident_retries_total", "Requests sent again to another instance", "reason")
_breaker_state = _gauge(
    "trident_breaker_state",
    "State of an instance's circuit breaker: 0 closed, 1 open, 2 half-open; the highest of all processes",
    "livemax",
    "instance",
)
_breaker_transitions = _counter(
    "trident_breaker_transitions_total", "Changes of the state of an instance's circuit breaker", "instance", "to"
)


_limit_decisions = _counter(
    "trident_limit_decisions_total",
    "Decisions of limits: admitted requests, and refusals",
    "scope",
    "limit",
    "decision",
)
_keys_rejected = _counter("trident_keys_rejected_total", "Requests without a valid API key", "reason")
_config_version = _gauge(
    "trident_config_version", "Version of the configuration; the lowest of all processes", "livemin"
)
_store_up = _gauge("trident_store_up", "1 if the store of keys and configuration responds to all processes", "livemin")
_redis_up = _gauge("trident_redis_up", "1 if Redis responds to all processes, otherwise 0", "livemin")


def record_limit_decision(scope: str, limit: str, decision: Literal["admitted", "refused"]) -> None:
    """Record a decision of a limit. `limit` is what it limits: requests, tokens or parallel."""
    _limit_decisions[scope, limit, decision].inc()


def record_rejected_key(reason: Literal["missing", "invalid", "too_many", "forbidden"]) -> None:
    """Record a request without a valid API key."""
    _keys_rejected[(reason,)].inc()


def set_config_version(version: int) -> None:
    """Record the version of the configuration in this process."""
    _config_version[()].set(version)


def set_store_up(is_up: bool) -> None:
    """Record whether the store responds."""
    _store_up[()].set(is_up)


def set_redis_up(is_up: bool) -> None:
    """Record whether Redis responds."""
    _redis_up[()].set(is_up)


def add_active_request(service: str) -> None:
    """Record that a request has begun. Call `remove_active_request` with the same service when its response ends."""
    _active[(_service(service),)].inc()


def remove_active_request(service: str) -> None:
    """Record that a request is no longer in progress."""
    _active[(_service(service),)].dec()


def record_request(
    service: str, model: str, status: int, seconds: float, request_bytes: int, response_bytes: int
) -> None:
    """Record a finished request. `model` is the name of a known model, or an empty string."""
    service, model = _service(service), _models[model]
    _requests[service, model, str(status)].inc()
    _request_seconds[service, model].observe(seconds)
    _request_bytes[(service,)].inc(request_bytes)
    _response_bytes[(service,)].inc(response_bytes)


def record_first_token(service: str, model: str, seconds: float) -> None:
    """Record the time from a request to its first output token."""
    _first_token_seconds[_service(service), _models[model]].observe(seconds)


def record_token_time(service: str, model: str, seconds: float) -> None:
    """Record the mean time per output token of a finished request, without its first token."""
    _token_seconds[_service(service), _models[model]].observe(seconds)


def record_tokens(model: str, direction: Literal["input", "output"], count: int) -> None:
    """Record tokens that a model has read (`input`) or generated (`output`)."""
    _tokens[_models[model], direction].inc(count)


def record_instance_request(service: str, instance: str, outcome: Outcome) -> None:
    """Record a finished request to an instance."""
    _instance_requests[_service(service), _instances[instance], outcome].inc()


def set_instance_active(service: str, instance: str, count: int) -> None:
    """Record the number of this process's requests to an instance that are in progress."""
    _instance_active[_service(service), _instances[instance]].set(count)


def set_instance_up(service: str, instance: str, is_up: bool) -> None:
    """Record whether this process considers an instance healthy."""
    _instance_up[_service(service), _instances[instance]].set(is_up)


def set_instance_weight(service: str, instance: str, weight: float) -> None:
    """Record the weight of an instance."""
    _instance_weight[_service(service), _instances[instance]].set(weight)


def remove_instance(service: str, instance: str) -> None:
    """Remove the gauges of an instance from the exposition. Setting them again, in all processes, restores them.

    prometheus_client cannot delete series that processes share, so they get the value NaN, which is not exposed.
    """
    service, instance = _service(service), _instances[instance]
    _instance_active[service, instance].set(0)  # a sum; NaN would hide what other processes have in progress
    _instance_up[service, instance].set(math.nan)
    _instance_weight[service, instance].set(math.nan)
    _breaker_state[(instance,)].set(math.nan)


def record_choice(service: str, strategy: str, instance: str, reason: ChoiceReason) -> None:
    """Record that the load balancer has chosen an instance."""
    _choices[_service(service), _strategies[strategy], _instances[instance], reason].inc()


def record_retry(reason: str) -> None:
    """Record that a request is sent again, to another instance. `reason` is an error code of this program."""
    _retries[(_retry_reasons[reason],)].inc()


def set_breaker_state(instance: str, state: BreakerState) -> None:
    """Record the state of an instance's circuit breaker in this process."""
    _breaker_state[(_instances[instance],)].set(BREAKER_STATES[state])


def record_breaker_transition(instance: str, to: BreakerState) -> None:
    """Record that an instance's circuit breaker has changed its state."""
    _breaker_transitions[_instances[instance], to].inc()


def reset() -> None:
    """Forget all names and values of this process. For tests without a metrics folder."""
    for kept in _kept:
        kept.reset()


def _service(name: str) -> str:
    return name if name in SERVICES else OTHER
