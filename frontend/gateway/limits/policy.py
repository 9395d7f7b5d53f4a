"""Which limits apply to a request."""

import ipaddress
from collections.abc import Sequence

from frontend.addresses import read_address
from frontend.gateway.configuration import Configuration, RateLimit
from frontend.gateway.keys import ApiKey
from frontend.gateway.limits.limit import Limit, Scope, Unit

_DEFAULT_CAPACITY, _DEFAULT_RATE = 100.0, 10.0
_DEFAULT_WINDOW, _DEFAULT_WARM_UP, _DEFAULT_COLD_FACTOR = 60.0, 300.0, 3.0
_MINUTE = 60.0
_MAX_CACHED = 10_000


class Policy:
    """The limits of one version of the configuration."""

    def __init__(self, configuration: Configuration):
        self._configuration = configuration
        self._shared: dict[tuple[str, str], tuple[Limit, ...]] = {}
        self._of_keys: dict[str, tuple[ApiKey, tuple[Limit, ...]]] = {}
        limits = [configuration.clientRateLimit, configuration.rateLimit, *configuration.modelRateLimits.values()]
        limits += [service.rateLimit for service in configuration.services.values()]
        self._has_client_limits = any(
            limit and limit.enabled and (limit is configuration.clientRateLimit or _counts_clients(limit))
            for limit in limits
        )
        self._models = {name.casefold(): limit for name, limit in configuration.modelRateLimits.items()}
        self._instances = {
            each.id: tuple(limits_of(each.rateLimit, f"instance:{each.id}", "instance"))
            for each in configuration.instances
            if each.rateLimit and each.rateLimit.enabled
        }
        self._per_instance = {
            name: service.rateLimit
            for name, service in configuration.services.items()
            if service.rateLimit and service.rateLimit.enabled and service.rateLimit.scope == "instance"
        }

    @property
    def has_instance_limits(self) -> bool:
        """Whether any instance has limits."""
        return bool(self._instances or self._per_instance)

    def limits(
        self, key: ApiKey | None, service: str, model: str, address: str, names: Sequence[str] = ()
    ) -> Sequence[Limit]:
        """Return the limits of a request, apart from those of the instance that it will be sent to.

        `names` are further names of the model.
        """
        names = (model, *names)
        found = self._shared.get((service, model))
        if found is None:
            if len(self._shared) >= _MAX_CACHED:
                self._shared.clear()
            found = self._shared[service, model] = tuple(self._shared_limits(service, model, names))
        if key is not None:
            found += self.key_limits(key)
        if self._has_client_limits:
            found += tuple(self._client_limits(service, model, address, names))
        return found

    def instance_limits(self, service: str, instance: str) -> Sequence[Limit]:
        """Return the limits of an instance."""
        found = self._instances.get(instance) or self._instances.get(f"@{instance.rpartition('@')[2]}", ())
        if limit := self._per_instance.get(service):
            found += tuple(limits_of(limit, f"service:{service}:instance:{instance}", "instance"))
        return found

    def key_limits(self, key: ApiKey) -> tuple[Limit, ...]:
        """Return the limits of an API key."""
        known, limits = self._of_keys.get(key.id, (None, ()))
        if known is not key:
            if len(self._of_keys) >= _MAX_CACHED:
                self._of_keys.clear()
            limits = tuple(limits_of_key(key))
            self._of_keys[key.id] = key, limits
        return limits

    def _shared_limits(self, service: str, model: str, names: Sequence[str]) -> list[Limit]:
        found: list[Limit] = []
        for shared, name, scope in self._shared_entries(model, names):
            if shared and shared.scope != "client-ip":
                found += limits_of(shared, name, scope)
        limit = self._limit_of(service)
        if limit and limit.scope == "service":
            found += limits_of(limit, f"service:{service}", "service")
        elif limit and limit.scope == "model":
            found += limits_of(limit, f"service:{service}:model:{model}", "model")
        return found

    def _client_limits(self, service: str, model: str, address: str, names: Sequence[str]) -> list[Limit]:
        address = client_network(address)
        found = limits_of(self._configuration.clientRateLimit, f"client:{address}", "client")
        entries = [(limit, name) for limit, name, _ in self._shared_entries(model, names)]
        for limit, name in (*entries, (self._limit_of(service), f"service:{service}")):
            if limit and _counts_clients(limit):
                found += limits_of(limit, f"{name}:client:{address}", "client")
        return found

    def _shared_entries(self, model: str, names: Sequence[str]) -> list[tuple[RateLimit | None, str, Scope]]:
        """Return the limits of all requests and of a model, which the configuration may call by any of its names."""
        of_model = next((self._models[name.casefold()] for name in names if name.casefold() in self._models), None)
        return [(self._configuration.rateLimit, "global", "global"), (of_model, f"model:{model}", "model")]

    def _limit_of(self, service: str) -> RateLimit | None:
        entry = self._configuration.services.get(service)
        return entry.rateLimit if entry else None


def client_network(address: str) -> str:
    """Return what a client's address is counted by. A client with IPv6 usually has 64 bits of addresses."""
    try:
        parsed = read_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def _counts_clients(limit: RateLimit) -> bool:
    return limit.scope == "client-ip" or limit.clientIpEnable


def limits_of_key(key: ApiKey) -> list[Limit]:
    """Return the limits of an API key."""
    numbers = RateLimit.model_construct(
        requestsPerMinute=key.requests_per_minute,
        requestsPerDay=key.requests_per_day,
        tokensPerMinute=key.tokens_per_minute,
        tokensPerDay=key.tokens_per_day,
        parallelRequests=key.parallel_requests,
    )
    return _further_limits(numbers, f"key:{key.id}", "key")


def limits_of(limit: RateLimit | None, name: str, scope: Scope) -> list[Limit]:
    """Return the limits that an entry of the configuration describes."""
    if limit is None or not limit.enabled:
        return []
    found = _further_limits(limit, name, scope)
    return [_algorithm_limit(limit, name, scope), *found] if limit.has_algorithm else found


def _algorithm_limit(limit: RateLimit, name: str, scope: Scope) -> Limit:
    if limit.algorithm == "sliding-window":
        seconds = limit.windowSize or _DEFAULT_WINDOW
        # A rate without a maximum means that many requests per second of the window.
        fallback = limit.capacity or (limit.rate * seconds if limit.rate else _DEFAULT_CAPACITY)
        capacity = max(1.0, limit.maxRequests or fallback)
        return Limit(f"{name}:window", scope, "requests", "window", capacity, seconds)
    capacity, rate = max(1.0, limit.capacity or _DEFAULT_CAPACITY), limit.rate or _DEFAULT_RATE
    if limit.algorithm != "warm-up":
        return Limit(f"{name}:bucket", scope, "requests", "bucket", capacity, 1 / rate)
    cold = limit.coldFactor or _DEFAULT_COLD_FACTOR
    # At the beginning, the capacity is divided by the cold factor, and one request must fit.
    capacity = max(capacity, cold)
    period = limit.warmUpPeriod or _DEFAULT_WARM_UP
    return Limit(f"{name}:warm-up", scope, "requests", "bucket", capacity, 1 / rate, period, cold)


def _further_limits(limit: RateLimit, name: str, scope: Scope) -> list[Limit]:
    found: list[Limit] = []
    minutes: list[tuple[Unit, int | None]] = [("requests", limit.requestsPerMinute), ("tokens", limit.tokensPerMinute)]
    days: list[tuple[Unit, int | None]] = [("requests", limit.requestsPerDay), ("tokens", limit.tokensPerDay)]
    for unit, number in minutes:
        if number:
            found.append(Limit(f"{name}:{unit}:minute", scope, unit, "bucket", number, _MINUTE / number))
    for unit, number in days:
        if number:
            found.append(Limit(f"{name}:{unit}:day", scope, unit, "day", number))
    if limit.parallelRequests:
        found.append(Limit(f"{name}:parallel", scope, "parallel", "parallel", limit.parallelRequests))
    return found
