"""The configuration that can be changed while Trident runs: strategies, limits, breakers, instances, aliases.

The names of fields are JAiRouter's (see docs/compatibility.md), in its three spellings: `normalized` makes them one.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from frontend.gateway.service_names import service_name
from frontend.instance_config import InstanceConfig, parse_base_url
from frontend.settings import SERVICES, STRATEGIES, Settings
from frontend.triton.instances_file import current_instances, discovered_instances

MASK = "***"
"""What the API shows instead of secrets, which are not stored."""

_MAX_ENTRIES = 10_000
_SEPARATED = re.compile(r"[-_]([a-z])")
# Spellings of a field → the spelling that is stored.
_FIELDS = {
    "loadBalancer": "loadBalance",
    "refillRate": "rate",
    "leakRate": "rate",
    "coldStartFactor": "coldFactor",
}
INERT_FIELDS = frozenset(
    {"adapter", "fallback", "path", "timeout", "maxRetries", "apiKey", "headers", "hashAlgorithm", "virtualNodes"}
    | {"key"}
)
"""Known fields that have no effect. They are kept, except secrets, and the response names them."""


def normalized(value: Any, inside: str = "") -> Any:
    """Return a configuration, of which `inside` names the object, with the names of its fields as they are stored."""
    if isinstance(value, list):
        return [normalized(item, inside) for item in value]
    if not isinstance(value, dict) or inside == "headers":
        return value
    if inside in ("aliases", "defaultModels"):
        return value
    if inside == "modelRateLimits":
        return {name: normalized(item, "rateLimit") for name, item in value.items()}
    found: dict[str, Any] = {}
    for name, item in value.items():
        field = service_key(name) if inside == "services" else _field(name, inside)
        if field in found:
            raise ValueError(f"'{name}' occurs twice, in different spellings")
        if field == "loadBalance" and isinstance(item, str):
            item = {"type": item}
        found[field] = normalized(item, "service" if inside == "services" else field)
    # Before a change is merged with the limit that there is, which has an algorithm.
    return _with_algorithm(found) if inside in ("rateLimit", "clientRateLimit") else found


def _with_algorithm(fields: dict[str, Any]) -> dict[str, Any]:
    """Choose the algorithm of a limit by the fields that only one of them has, if it is not given."""
    if fields.get("algorithm") is not None:
        return fields
    for algorithm, names in _OWN_FIELDS.items():
        if any(fields.get(name) is not None for name in names):
            return fields | {"algorithm": algorithm}
    return fields


def service_key(name: str) -> str:
    """Return the name of a service. Raises ValueError if there is no such service."""
    return service_name(name)


def _field(name: str, inside: str) -> str:
    name = _SEPARATED.sub(lambda found: found[1].upper(), name)
    if inside in ("rateLimit", "clientRateLimit") and name == "type":
        return "algorithm"
    return _FIELDS.get(name, name)


def _word(choices: Iterable[str]) -> Callable[[str], str]:
    def normal(text: str) -> str:
        word = text.lower().replace("_", "-")
        if word not in choices:
            raise ValueError(f"'{text[:50]}' is not one of {', '.join(choices)}")
        return word

    return normal


_ALGORITHMS = ("token-bucket", "leaky-bucket", "sliding-window", "warm-up")
# Algorithm → the fields that only it has.
_OWN_FIELDS = {"sliding-window": ("windowSize", "maxRequests"), "warm-up": ("warmUpPeriod", "coldFactor")}
_SCOPES = ("service", "model", "client-ip", "instance")


class Entry(BaseModel):
    """An object of the configuration. Unknown fields are rejected."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return self.model_dump(exclude_none=True)


class RateLimit(Entry):
    """Limits of requests and tokens. `capacity` and `rate` are those of the algorithm; the others may be added."""

    enabled: bool = Field(True, description="Whether the limits apply.")
    algorithm: Annotated[str, AfterValidator(_word(_ALGORITHMS))] = Field(
        "token-bucket", description="`token-bucket`, `leaky-bucket`, `sliding-window` or `warm-up`."
    )
    capacity: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None, description="Requests at once (buckets, 100 if only the rate is set), or per window."
    )
    rate: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None, description="Requests per second (10 if only the capacity is set)."
    )
    windowSize: Annotated[float, Field(gt=0, le=86_400)] | None = Field(  # noqa: N815
        None, description="Length of the sliding window in seconds (60)."
    )
    maxRequests: Annotated[int, Field(ge=1, le=10**9)] | None = Field(  # noqa: N815
        None, description="Requests per sliding window."
    )
    warmUpPeriod: Annotated[float, Field(gt=0, le=86_400)] | None = Field(  # noqa: N815
        None, description="Seconds in which `warm-up` reaches its full rate (300)."
    )
    coldFactor: Annotated[float, Field(ge=1, le=1000)] | None = Field(  # noqa: N815
        None, description="What `warm-up` divides its rate by at the beginning (3)."
    )
    scope: Annotated[str, AfterValidator(_word(_SCOPES))] = Field(
        "service",
        description="What is counted: all requests to the `service`, or each `model`, `client-ip` or `instance`.",
    )
    key: str | None = Field(None, max_length=200, description="No effect.")
    clientIpEnable: bool = Field(False, description="Apply the limits to each client address too.")  # noqa: N815
    requestsPerMinute: Annotated[int, Field(ge=1, le=10**9)] | None = Field(  # noqa: N815
        None, description="Maximum requests per minute."
    )
    requestsPerDay: Annotated[int, Field(ge=1, le=10**12)] | None = Field(  # noqa: N815
        None, description="Maximum requests per UTC day."
    )
    tokensPerMinute: Annotated[int, Field(ge=1, le=10**12)] | None = Field(  # noqa: N815
        None, description="Maximum tokens per minute, in and out."
    )
    tokensPerDay: Annotated[int, Field(ge=1, le=10**15)] | None = Field(  # noqa: N815
        None, description="Maximum tokens per UTC day, in and out."
    )
    parallelRequests: Annotated[int, Field(ge=1, le=10**6)] | None = Field(  # noqa: N815
        None, description="Maximum requests in progress."
    )

    @model_validator(mode="before")
    @classmethod
    def _infer(cls, fields: Any) -> Any:
        return _with_algorithm(fields) if isinstance(fields, dict) else fields

    @property
    def has_algorithm(self) -> bool:
        """Whether the algorithm's own limit applies, besides limits per minute and day."""
        own = (self.capacity, self.rate, self.windowSize, self.maxRequests, self.warmUpPeriod)
        return any(value is not None for value in own) or not self._has_others

    @property
    def _has_others(self) -> bool:
        others = (self.requestsPerMinute, self.requestsPerDay, self.tokensPerMinute, self.tokensPerDay)
        return any(value is not None for value in (*others, self.parallelRequests))


class CircuitBreaker(Entry):
    """The circuit breaker of an instance, or of all instances of a service."""

    enabled: bool = Field(True, description="Whether repeated failures stop requests.")
    failureThreshold: Annotated[int, Field(ge=1, le=10**6)] | None = Field(  # noqa: N815
        None, description="Failures in a row that open the breaker (`--failure-threshold`)."
    )
    successThreshold: Annotated[int, Field(ge=1, le=10**6)] | None = Field(  # noqa: N815
        None, description="Successful trial requests that close it (`--success-threshold`)."
    )
    recoveryTimeout: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(  # noqa: N815
        None, description="Milliseconds until the first trial request (`--breaker-seconds`)."
    )
    timeout: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(
        None, description="The same as `recoveryTimeout`, which has priority."
    )

    @property
    def open_seconds(self) -> float | None:
        """The seconds until the first trial request."""
        milliseconds = self.recoveryTimeout or self.timeout
        return None if milliseconds is None else milliseconds / 1000


class LoadBalance(Entry):
    """The strategy of load balancing."""

    type: Annotated[str, AfterValidator(_word(STRATEGIES))] = Field(
        "least-connections", description=f"`{'`, `'.join(STRATEGIES)}`."
    )
    hashAlgorithm: str | None = Field(None, max_length=50, description="No effect.")  # noqa: N815
    virtualNodes: int | None = Field(None, ge=1, le=10**6, description="No effect.")  # noqa: N815


class Service(Entry):
    """The configuration of a service."""

    loadBalance: LoadBalance | None = Field(None, description="Strategy of load balancing.")  # noqa: N815
    rateLimit: RateLimit | None = Field(None, description="Limits of the service.")  # noqa: N815
    circuitBreaker: CircuitBreaker | None = Field(None, description="Breaker of its instances.")  # noqa: N815
    adapter: str | None = Field(None, max_length=50, description="No effect.")
    fallback: dict[str, Any] | None = Field(None, description="No effect.")


class ServiceRequest(Service):
    """The configuration of a service in a request, with its instances."""

    instances: list["Instance"] | None = Field(None, description="They replace all instances of the service.")


class Instance(Entry):
    """One model at one Triton, or without a name all models there."""

    name: str = Field("", max_length=200, description="Name of the model in Triton; all models if empty.")
    baseUrl: str = Field(  # noqa: N815
        max_length=300, description="`http://HOST:PORT` of Triton's HTTP server, or `grpc://HOST:PORT`."
    )
    weight: Annotated[float, Field(gt=0, le=1000)] = Field(1.0, description="Share of the requests.")
    enabled: bool = Field(True, description="Whether the instance gets requests.")
    rateLimit: RateLimit | None = Field(None, description="Limits of the instance.")  # noqa: N815
    circuitBreaker: CircuitBreaker | None = Field(None, description="Breaker of the instance.")  # noqa: N815
    grpcPort: Annotated[int, Field(ge=1, le=65_535)] | None = Field(None, description="Triton's gRPC port.")  # noqa: N815
    metricsPort: Annotated[int, Field(ge=1, le=65_535)] | None = Field(  # noqa: N815
        None, description="Triton's metrics port."
    )
    service: str | None = Field(None, description="Service of the model.")
    path: str | None = Field(None, max_length=300, description="No effect.")
    adapter: str | None = Field(None, max_length=50, description="No effect.")
    timeout: int | None = Field(None, ge=0, description="No effect.")
    maxRetries: int | None = Field(None, ge=0, description="No effect.")  # noqa: N815
    apiKey: str | None = Field(None, description="No effect, and not stored: Triton has no keys.")  # noqa: N815
    headers: dict[str, str] | None = Field(None, description="No effect, and not stored.")

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, fields: Any) -> Any:
        """Drop what is computed, and mask secrets."""
        if not isinstance(fields, dict):
            return fields
        fields = {name: value for name, value in fields.items() if name != "instanceId"}
        if fields.get("apiKey"):
            fields["apiKey"] = MASK
        if isinstance(fields.get("headers"), dict):
            fields["headers"] = dict.fromkeys(map(str, fields["headers"]), MASK)
        return with_enabled(fields)

    @field_validator("service")
    @classmethod
    def _service(cls, name: str | None) -> str | None:
        # Models that generate images also edit them.
        found = None if name is None else service_name(name)
        return "imgGen" if found == "imgEdit" else found

    @field_validator("baseUrl")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parse_base_url(url)
        except ValueError as error:
            raise ValueError(str(error).replace("'base_url' ", "")) from None
        return url

    @field_validator("rateLimit")
    @classmethod
    def _check_limit(cls, limit: RateLimit | None) -> RateLimit | None:
        if limit and (limit.scope not in ("service", "instance") or limit.clientIpEnable):
            raise ValueError("'scope' must be 'instance' or absent: all requests to the instance count")
        return limit

    @model_validator(mode="after")
    def _check(self) -> "Instance":
        self.config()
        return self

    def config(self) -> InstanceConfig:
        """Return the configuration for the router. Raises ValueError."""
        address = parse_base_url(self.baseUrl, self.grpcPort, self.metricsPort)
        return InstanceConfig(address, self.name, self.weight, self.enabled)

    @property
    def id(self) -> str:
        """The ID of the instance."""
        return self.config().id


def with_enabled(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an instance with `enabled` in place of `status`. Raises ValueError for an unknown status."""
    if "status" not in fields:
        return fields
    if fields["status"] not in ("active", "inactive"):
        raise ValueError("'status' must be 'active' or 'inactive'")
    rest = {name: value for name, value in fields.items() if name != "status"}
    if rest.get("enabled") not in (None, fields["status"] == "active"):
        raise ValueError("'status' contradicts 'enabled'")
    return rest | {"enabled": fields["status"] == "active"}


class Configuration(Entry):
    """The whole configuration: one version."""

    services: dict[str, Service] = Field({}, description="Service → its configuration.")
    instances: list[Instance] = Field(
        [], max_length=_MAX_ENTRIES, description="Instances, besides the models of the Triton that Trident starts."
    )
    rateLimit: RateLimit | None = Field(None, description="Limits of all requests together.")  # noqa: N815
    clientRateLimit: RateLimit | None = Field(None, description="Limits of each client address.")  # noqa: N815
    modelRateLimits: dict[str, RateLimit] = Field(  # noqa: N815
        {}, max_length=_MAX_ENTRIES, description="Model ID → its limits."
    )
    aliases: dict[str, str] = Field({}, max_length=_MAX_ENTRIES, description="Alias → model, ID or task.")
    defaultModels: dict[str, str] = Field(  # noqa: N815
        {}, max_length=100, description="Task → model that serves requests without a model."
    )

    @field_validator("rateLimit", "clientRateLimit", "modelRateLimits")
    @classmethod
    def _check_scopes(cls, value: Any) -> Any:
        for limit in value.values() if isinstance(value, dict) else [value]:
            if limit and limit.scope not in ("service", "client-ip"):
                raise ValueError("'scope' must be 'client-ip' or absent here")
        return value

    @model_validator(mode="after")
    def _check(self) -> "Configuration":
        seen: set[str] = set()
        for instance in self.instances:
            if instance.id in seen:
                raise ValueError(f"the instance '{instance.id}' occurs twice")
            seen.add(instance.id)
        ports = {each.config().address.base_url: each.config().address for each in self.instances}
        for instance in self.instances:
            address = instance.config().address
            if address != ports[address.base_url]:
                raise ValueError(f"the instances at {address.base_url} have different ports")
        for service, entry in self.services.items():
            if service not in SERVICES:
                raise ValueError(f"'{service[:50]}' is not one of {', '.join(SERVICES)}")
            if service == "imgEdit" and entry.circuitBreaker:
                raise ValueError("imgEdit has the instances, and so the circuit breakers, of imgGen: set it there")
            if entry.loadBalance and entry.loadBalance.type == "prefix-affinity" and service != "chat":
                raise ValueError(f"prefix-affinity does not apply to {service}, only to chat")
        return self

    @property
    def has_limits(self) -> bool:
        """Whether any limit is configured, apart from those of keys."""
        limits = [self.rateLimit, self.clientRateLimit, *self.modelRateLimits.values()]
        limits += [service.rateLimit for service in self.services.values()]
        limits += [instance.rateLimit for instance in self.instances]
        return any(limit is not None and limit.enabled for limit in limits)

    def strategies(self) -> dict[str, str]:
        """Return the strategy of each service that has one."""
        return {name: each.loadBalance.type for name, each in self.services.items() if each.loadBalance}


class Breakers:
    """The breakers of a configuration. An instance's service, and then the settings, have what it does not set."""

    def __init__(self, configuration: Configuration, settings: Settings):
        self._settings = settings
        self._services = {name: each.circuitBreaker for name, each in configuration.services.items()}
        self._instances = {each.id: each.circuitBreaker for each in configuration.instances if each.circuitBreaker}

    def of(self, service: str, instance: str) -> tuple[int | None, int, float]:
        """Return the thresholds of failures and successes, and the seconds for which an instance's breaker is open.

        The first is None if the breaker is disabled.
        """
        all_models = f"@{instance.rpartition('@')[2]}"
        entries = [self._instances.get(instance), self._instances.get(all_models), self._services.get(service)]
        found = [entry for entry in entries if entry]
        if any(not entry.enabled for entry in found[:1]):
            return None, self._settings.success_threshold, self._settings.breaker_seconds
        settings = self._settings
        failures = next((each.failureThreshold for each in found if each.failureThreshold), settings.failure_threshold)
        successes = next((each.successThreshold for each in found if each.successThreshold), settings.success_threshold)
        return (
            failures,
            successes,
            next((each.open_seconds for each in found if each.open_seconds), settings.breaker_seconds),
        )


def read_configuration(content: Mapping[str, Any]) -> Configuration:
    """Return the configuration that a version has. Raises ValueError."""
    return Configuration.model_validate(content)


def configuration_of(settings: Settings, instances: Sequence[InstanceConfig] | None = None) -> Configuration:
    """Return the configuration of the settings, which is version 0. `instances` are the current ones, if others.

    Raises ValueError if `rate_limits` is invalid.
    """
    limits = dict(settings.rate_limits)
    services: dict[str, Any] = {name: {"loadBalance": {"type": kind}} for name, kind in settings.load_balance.items()}
    if not isinstance(limits.get("services", {}), dict):
        raise ValueError("rate_limits: 'services' must be a table")
    for name, limit in limits.pop("services", {}).items():
        services.setdefault(service_name(name), {})["rateLimit"] = normalized(limit, "rateLimit")
    content: dict[str, Any] = {
        "services": {service_name(name): normalized(value, "service") for name, value in services.items()},
        "instances": [],
        "aliases": settings.aliases,
    }
    for name, field in (("global", "rateLimit"), ("client", "clientRateLimit"), ("models", "modelRateLimits")):
        if name in limits:
            content[field] = normalized(limits.pop(name), field if field == "modelRateLimits" else "rateLimit")
    if limits:
        raise ValueError(f"rate_limits: unknown key '{next(iter(limits))}'")
    if settings.discover:
        content["instances"] = [instance_of(each).as_dict() for each in settings.instances]
    elif not settings.starts_triton:
        current = settings.all_instances if instances is None else instances
        content["instances"] = [instance_of(each).as_dict() for each in current]
    return read_configuration(content)


def instance_of(config: InstanceConfig) -> Instance:
    """Return the entry for an instance of the settings."""
    address = config.address
    return Instance(
        name=config.name,
        baseUrl=address.base_url,
        weight=config.weight,
        enabled=config.enabled,
        grpcPort=address.grpc_port,
        metricsPort=address.metrics_port,
    )


def effective_instances(settings: Settings, configuration: Configuration) -> list[InstanceConfig]:
    """Return all instances: those of the configuration, and the models of Tritons that it does not name.

    These are the Triton that Trident starts, or the ones that it has discovered.
    """
    found = [each.config() for each in configuration.instances]
    if settings.discover:
        return [*found, *discovered_instances(settings, current_instances(settings), found)]
    if not settings.starts_triton:
        return found
    own = settings.all_instances[0]
    # Its ports are those of the settings, which may have changed since an instance was configured.
    found = [
        replace(each, address=own.address) if each.address.base_url == own.address.base_url else each for each in found
    ]
    return [own, *(each for each in found if each.id != own.id)]


def inert_fields(value: Any) -> list[str]:
    """Return the names of fields in a request that have no effect."""
    if isinstance(value, list):
        return sorted({name for item in value for name in inert_fields(item)})
    if not isinstance(value, dict):
        return []
    found = {name for name, item in value.items() if name in INERT_FIELDS and item not in (None, "", {})}
    algorithm = value.get("algorithm")
    for owner, names in _OWN_FIELDS.items():
        if isinstance(algorithm, str) and algorithm.lower().replace("_", "-") != owner:
            found |= {name for name in names if value.get(name) is not None}
    for name, item in value.items():
        if name not in ("fallback", "headers", "circuitBreaker"):
            found |= set(inert_fields(item))
    return sorted(found)
