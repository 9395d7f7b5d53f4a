"""Sends requests to instances: chooses one, waits while none is up, and tries another before the first response."""

import http.client
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from contract.tensors import OUTPUT_MISMATCH, TENSORS
from frontend import metrics
from frontend.caller import traceparent
from frontend.errors import (
    APIError,
    CircuitBreakerOpen,
    ClientClosedRequest,
    DeadlineExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    ServiceUnavailable,
    Unavailable,
)
from frontend.instance_config import InstanceConfig
from frontend.request_usage import RequestUsage, request_usage
from frontend.settings import SERVICES, Settings
from frontend.triton.affinity import affinity_key
from frontend.triton.balancer import Balancer, Key, make_balancer, normal_strategy
from frontend.triton.breaker import Ticket
from frontend.triton.instance import SERVICE_OF_TASK, Instance
from frontend.triton.instances_file import discovered_instances, follow_instances
from frontend.triton.model import READY, Model, read_model
from frontend.triton.registry import Registry
from frontend.triton.routed_call import RoutedCall
from frontend.triton.routed_inference import RoutedInference
from frontend.triton.tensors import Value
from frontend.triton.upstream import Upstream

DEFAULT_STRATEGY = "least-connections"
_MAX_RETRIES = 2
_MAX_WAITING = 1024
_WAIT_SECONDS = 0.5
# The share of requests that may be sent to a second instance because the first one has failed to answer them.
_RETRY_SHARE, _MAX_SAVED_RETRIES = 0.1, 20.0

_METRICS_SECONDS, _MAX_METRICS_BYTES = 2.0, 16 << 20


def service_of(task: str, inputs: Mapping[str, Any]) -> str:
    """Return the service of a request: images are generated (imgGen) or, if the request has one, edited (imgEdit)."""
    return "imgEdit" if task == "image_generation" and "image" in inputs else SERVICE_OF_TASK.get(task, "chat")


@dataclass
class Group:
    """The requests that belong together, such as the choices of one conversation: they go to the same instance."""

    instance: Instance | None = None


@dataclass
class Attempt:
    """The state of one request: where it has been tried, and how long it may take."""

    model: Model
    service: str
    key: Key
    deadline: float
    group: Group
    tried: set[tuple[str, int]] = field(default_factory=set)
    retries: int = 0
    error: APIError | None = None
    is_cancelled: bool = False
    queue_seconds: float = 0.0
    usage: RequestUsage = field(default_factory=request_usage)
    """What the HTTP request has used."""
    waits_until: float | None = None
    """When the request stops waiting for an instance. Requests that begin together stop together."""

    def take_queue_seconds(self) -> float:
        """Return how long the request has waited for an instance since this was last called."""
        taken, self.queue_seconds = self.queue_seconds, 0.0
        return taken


@dataclass
class Lease:
    """A request at an instance, which counts as in progress there until `close`."""

    instance: Instance
    upstream: Upstream
    ticket: Ticket
    service: str


class Router:
    """Gives requests to instances. All methods may be called from any greenlet."""

    def __init__(self, settings: Settings, registry: Registry):
        self._settings, self._registry = settings, registry
        self._strategies: dict[str, str] = {}
        # One for each service and model, as the prompts that an instance has cached are those of its own model.
        self._balancers: dict[tuple[str, str], Balancer] = {}
        self._changed = threading.Condition()
        self._waiting = 0
        self._saved_retries = _MAX_SAVED_RETRIES / 2
        self.limit: Callable[[str, str, str], APIError | None] = lambda service, instance, lease: None
        """Charges the limits of an instance for a request with a lease, or returns why it must not be sent there."""
        self.follows_file = True
        """Whether changes of the file with the instances apply."""
        self.fixed: Sequence[InstanceConfig] = ()
        """The instances that are used besides the discovered ones."""
        self.set_strategies(settings.load_balance)

    def set_strategies(self, strategies: Mapping[str, str]) -> None:
        """Use these strategies of services, and the default one for the others, from now on."""
        new = {service: normal_strategy(strategies.get(service, DEFAULT_STRATEGY)) for service in SERVICES}
        for key in [key for key in self._balancers if self._strategies.get(key[0]) != new[key[0]]]:
            del self._balancers[key]
        self._strategies = new

    def services(self) -> Sequence[str]:
        """Return the names of the services."""
        return SERVICES

    def check(self, config: InstanceConfig, service: str) -> None:
        """Raise APIError unless the Triton of an instance responds and has the model, which must have this service."""
        client = self._registry.connect(config.address)
        try:
            names = {each.name for each in client.index() if each.state == READY}
            if config.name and config.name not in names:
                raise InvalidRequest(
                    f"{config.address.base_url} has not loaded the model '{config.name}'", param="name"
                )
            model = read_model(config.name, client.config(config.name)) if config.name else None
        except (Unavailable, DeadlineExceeded) as error:
            raise InvalidRequest(f"{config.address.base_url} does not respond: {error}", param="baseUrl") from error
        finally:
            client.close()
        if config.name and (model is None or SERVICE_OF_TASK.get(model.task) not in _matching(service)):
            task = model.task if model else "none"
            raise InvalidRequest(
                f"The model '{config.name}' does not serve {service}; its task is {task}", param="name"
            )

    def strategy(self, service: str) -> str:
        """Return the strategy of a service."""
        return self._strategies[service]

    def watch(self) -> None:
        """Start the health checks of all instances, and follow changes of the configuration."""
        for upstream in self._registry.upstreams:
            if not upstream.is_watched:
                upstream.watch(self.notify)
        follow_instances(self._settings, self._follow_file)

    def _follow_file(self, instances: Sequence[InstanceConfig]) -> None:
        if self._settings.discover:
            self.configure([*self.fixed, *discovered_instances(self._settings, instances, self.fixed)])
        elif self.follows_file:
            self.configure(instances)

    def configure(self, instances: Sequence[InstanceConfig]) -> None:
        """Add, change and remove instances while requests go on."""
        for upstream in self._registry.configure(instances):
            upstream.watch(self.notify)
        self.notify()

    def stream(
        self,
        model: Model,
        inputs: Mapping[str, Value],
        *,
        request_id: str,
        timeout: float,
        address: str = "",
        client: str | None = None,
        cache_key: str = "",
        whole: bool = False,
        group: Group | None = None,
    ) -> RoutedCall:
        """Start a request to a decoupled model. `timeout` is the maximum time to the last response, in seconds.

        `address` is the client's address, and `cache_key` the request's `prompt_cache_key`: both can determine the
        instance. `client` identifies the client for models that share their capacity fairly between clients. If
        `whole`, the HTTP response begins after the last response, so that a request can be repeated until then.
        Raises APIError if no instance can get the request.
        """
        service = service_of(model.task, inputs)
        attempt = self._attempt(model, service, self._key(service, address, cache_key, inputs), timeout, group)
        trace = _trace()

        def start(triton: Any, seconds: float) -> Any:
            options = {"client": client} | trace
            return triton.stream(model.name, inputs, request_id=request_id, timeout=seconds, **options)

        return RoutedCall(self, attempt, start, TENSORS[model.task].last_output, whole)

    def infer(
        self,
        model: Model,
        inputs: Mapping[str, Sequence[bytes]],
        *,
        request_id: str,
        timeout: float,
        parameters: Mapping[str, bool | str],
        address: str = "",
    ) -> RoutedInference:
        """Start a request to a batched model, which sends one response. `timeout` is in seconds.

        Raises APIError if the request cannot be sent.
        """
        attempt = self._attempt(model, service_of(model.task, inputs), Key(address), timeout, None)
        trace = _trace()

        def start(triton: Any, seconds: float) -> Any:
            options = {"parameters": parameters} | trace
            return triton.infer(model.name, inputs, request_id=request_id, timeout=seconds, **options)

        return RoutedInference(self, attempt, start)

    def instances(self) -> list[Instance]:
        """Return all instances."""
        for upstream in self._registry.upstreams:
            upstream.refresh()
        return self._registry.instances()

    def triton_metrics(self) -> dict[str, str]:
        """Return the metrics of each Triton that responds, in Prometheus' text format, by host and port."""
        upstreams = self._registry.upstreams
        with ThreadPoolExecutor(max(1, len(upstreams))) as pool:
            texts = pool.map(lambda upstream: _read_text(upstream.address.metrics_url), upstreams)
            return {
                each.address.base_url.removeprefix("http://"): text
                for each, text in zip(upstreams, texts, strict=True)
                if text is not None
            }

    def capacity(self, model: Model) -> int:
        """Return the number of instances of a model that get requests, at least 1."""
        return max(1, sum(instance.is_usable and instance.is_up for instance in self._registry.instances(model.name)))

    def acquire(self, attempt: Attempt, wait: bool) -> Lease | None:
        """Choose an instance for a request. If none is up, wait for one, or without `wait` return None.

        Raises APIError if no instance can get the request in time.
        """
        if attempt.waits_until is None:
            attempt.waits_until = min(attempt.deadline, time.monotonic() + self._settings.recovery_seconds)
        while True:
            if attempt.is_cancelled:
                raise ClientClosedRequest("The client disconnected")
            if lease := self._try(attempt):
                attempt.waits_until = None
                return lease
            self._require_hope(attempt, attempt.waits_until)
            if not wait:
                return None
            started = time.monotonic()
            self._wait()
            attempt.queue_seconds += time.monotonic() - started

    def begin(self, request: Any, lease: Lease) -> None:
        """Count a request at its instance."""
        lease.instance.add(request)

    def end(self, request: Any, lease: Lease, error: APIError | None, begun: bool) -> None:
        """Stop counting a request, which has ended with `error` or without. `begun`: the first response has arrived."""
        instance = lease.instance
        instance.remove(request)
        outcome = _outcome(error, begun)
        metrics.record_instance_request(lease.service, instance.id, outcome)
        if outcome == "ok":
            instance.responded_at = time.monotonic()
            lease.ticket.succeeded()
        elif outcome == "failed":
            self._fail(instance, lease.ticket, begun)
            if isinstance(error, Unavailable):
                instance.suspect()
                lease.upstream.check_soon()
        else:
            lease.ticket.abandoned()

    def may_retry(self, attempt: Attempt, lease: Lease, error: APIError) -> bool:
        """Return whether a request whose first response is an error may be sent again, and record that it will be.

        A request that was lost with its instance may wait until that instance is up again. One that an instance has
        failed to answer may only go to another instance, within the budget. One that is rejected because an instance is
        full may go to all others.
        """
        if attempt.is_cancelled or time.monotonic() >= attempt.deadline:
            return False
        if not isinstance(error, Unavailable | EngineFailure):
            return False
        attempt.tried.add((lease.instance.id, lease.instance.epoch))
        attempt.error = error
        if isinstance(error, Overloaded):
            return bool(self._candidates(attempt))  # costs the full instance nothing
        if attempt.retries >= _MAX_RETRIES:
            return False
        if isinstance(error, EngineFailure):
            if not self._candidates(attempt) or self._saved_retries < 1:
                return False
            self._saved_retries -= 1
        attempt.retries += 1
        metrics.record_retry(error.code)
        return True

    def _attempt(self, model: Model, service: str, key: Key, timeout: float, group: Group | None) -> Attempt:
        self._saved_retries = min(self._saved_retries + _RETRY_SHARE, _MAX_SAVED_RETRIES)
        return Attempt(model, service, key, time.monotonic() + timeout, group or Group())

    def _key(self, service: str, address: str, cache_key: str, inputs: Mapping[str, Value]) -> Key:
        if self._strategies[service] == "prefix-affinity":
            return affinity_key(address, cache_key, inputs)
        return Key(address, cache_key)

    def _candidates(self, attempt: Attempt) -> list[Instance]:
        self._registry.compare()
        usable = [instance for instance in self._registry.instances(attempt.model.name) if instance.is_usable]
        up = [instance for instance in usable if instance.is_up and not instance.is_reloading]
        if 2 * len(up) < len(usable):
            # Probes alone may take away no more than half of the instances: if more time out, the probes are to blame.
            up += [instance for instance in usable if instance.is_doubtful and not instance.is_reloading]
        return [each for each in up if (each.id, each.epoch) not in attempt.tried and each.breaker.admits()]

    def _try(self, attempt: Attempt) -> Lease | None:
        candidates, refusal = self._candidates(attempt), None
        while candidates:
            chosen, reason = self._choose(attempt, candidates)
            candidates.remove(chosen)
            upstream, ticket = self._registry.upstream_of(chosen), chosen.breaker.admit()
            if upstream is None or ticket is None:
                if ticket:
                    ticket.abandoned()
                continue
            if refused := self._charge(attempt, chosen):
                ticket.abandoned()
                refusal = refused
                continue
            strategy = self._strategies[attempt.service]
            metrics.record_choice(attempt.service, strategy, chosen.id, "retry" if attempt.retries else reason)
            attempt.group.instance = chosen
            return Lease(chosen, upstream, ticket, attempt.service)
        if refusal:
            raise refusal
        return None

    def _choose(self, attempt: Attempt, candidates: list[Instance]) -> tuple[Instance, metrics.ChoiceReason]:
        if attempt.group.instance and attempt.group.instance in candidates:
            return attempt.group.instance, "affinity"
        return self._balancer(attempt).choose(candidates, attempt.key)

    def _charge(self, attempt: Attempt, instance: Instance) -> APIError | None:
        """Charge the limits of an instance, once for all requests to models that belong to an HTTP request."""
        if instance.id in attempt.usage.instances:
            return None
        refusal = self.limit(attempt.service, instance.id, attempt.usage.lease)
        if refusal is None:
            attempt.usage.instances[instance.id] = 0
        return refusal

    def _balancer(self, attempt: Attempt) -> Balancer:
        key = attempt.service, attempt.model.name
        if key not in self._balancers:
            self._balancers[key] = make_balancer(self._strategies[attempt.service])
        return self._balancers[key]

    def _require_hope(self, attempt: Attempt, until: float) -> None:
        """Raise APIError unless an instance may soon be up, and waiting for it is allowed."""
        instances = [each for each in self._registry.instances(attempt.model.name) if each.is_usable]
        if not instances:
            raise attempt.error or ServiceUnavailable(f"No instance serves the model '{attempt.model.id}'")
        if any(not instance.is_up or instance.is_suspect or instance.is_reloading for instance in instances):
            if any(instance.is_reloading for instance in instances):
                until = attempt.deadline
            if time.monotonic() < until and self._waiting < _MAX_WAITING:
                return
            message = str(attempt.error or f"The model '{attempt.model.id}' is not available; retry later")
            raise ServiceUnavailable(message) from attempt.error
        if attempt.error:
            raise attempt.error
        seconds = min(instance.breaker.retry_after for instance in instances)
        raise CircuitBreakerOpen(f"The model '{attempt.model.id}' has failed repeatedly; retry later", seconds)

    def _wait(self) -> None:
        """Wait until an instance goes up or down, for at most half a second."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait(_WAIT_SECONDS)
            finally:
                self._waiting -= 1

    def notify(self) -> None:
        """Wake the requests that wait for an instance."""
        with self._changed:
            self._changed.notify_all()

    def _fail(self, instance: Instance, ticket: Ticket, begun: bool) -> None:
        ticket.failed()
        if begun and (later := instance.breaker.admit()):
            later.failed()  # the ticket has succeeded with the first response


def _matching(service: str) -> tuple[str, ...]:
    """Return the services of models that serve a service: models that edit images also generate them."""
    return ("imgGen",) if service == "imgEdit" else (service,)


def _trace() -> dict[str, Any]:
    """Return the option with the trace that the current request belongs to, if any."""
    text = traceparent()
    return {"traceparent": text} if text else {}


def _outcome(error: APIError | None, begun: bool) -> metrics.Outcome:
    """Return how a request that ended with `error`, or without, counts. The time of a stream may end for its length."""
    if isinstance(error, Overloaded):
        return "overloaded"
    if isinstance(error, ClientClosedRequest) or (begun and isinstance(error, DeadlineExceeded)):
        return "abandoned"
    if error is not None and error.code == OUTPUT_MISMATCH:
        return "ok"  # the instance works
    # Any other error shows that the instance works: the request was invalid.
    return "failed" if isinstance(error, Unavailable | EngineFailure | DeadlineExceeded) else "ok"


def _read_text(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_METRICS_SECONDS) as response:  # noqa: S310 - from the settings
            return str(response.read(_MAX_METRICS_BYTES).decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return None
