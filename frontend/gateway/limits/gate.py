"""Admits requests within their limits, and charges what they have used."""

import itertools
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from frontend import metrics
from frontend.errors import RateLimited
from frontend.gateway.configuration import Configuration
from frontend.gateway.keys import ApiKey
from frontend.gateway.limits.limit import Level, Limit, Limiter
from frontend.gateway.limits.policy import Policy
from frontend.request_usage import RequestUsage

# Identifies this process, as the module is imported after the fork.
_PROCESS = uuid.uuid4().hex
_numbers = itertools.count()
_UNITS = {"requests": "requests", "tokens": "tokens", "parallel": "parallel requests"}


@dataclass(eq=False)
class Admission:
    """A request that was admitted. `finish` must be called when its response ends."""

    gate: "Gate"
    service: str
    limits: Sequence[Limit]
    levels: Sequence[Level]
    lease: str
    instances: dict[str, Sequence[Limit]] = field(default_factory=dict)
    """ID of an instance that the request was sent to → the limits that it was charged there."""
    is_finished: bool = False

    def headers(self) -> dict[str, str]:
        """Return OpenAI's headers: the remainder of the tightest limits of requests and of tokens."""
        return limit_headers(self.limits, self.levels)

    def finish(self, usage: RequestUsage, was_refused: bool) -> None:
        """Charge the tokens. `was_refused`: the limits of all instances have refused the request. Only once."""
        if self.is_finished:
            return
        self.is_finished = True
        gate, limiter = self.gate, self.gate.limiter
        # Before its leases end, so that they are not renewed any more.
        gate.open.pop(self.lease, None)
        limiter.finish(list(self.limits), usage.tokens, self.lease)
        for instance, limits in self.instances.items():
            limiter.finish(limits, usage.instances.get(instance, 0), self.lease)
        if was_refused:
            limiter.charge([limit for limit in self.limits if limit.unit == "requests"], -1)

    def parallel(self) -> list[Limit]:
        """Return the limits of parallel requests that the request counts in."""
        limits = [*self.limits, *(limit for each in self.instances.values() for limit in each)]
        return [limit for limit in limits if limit.kind == "parallel"]


class Gate:
    """Decides whether requests are within their limits. Methods may be called from any greenlet."""

    def __init__(self, limiter: Limiter):
        self.limiter = limiter
        self.policy = Policy(Configuration())
        self.open: dict[str, Admission] = {}
        """Lease → request in progress, if it counts in parallel limits, or instances have limits."""

    def configure(self, configuration: Configuration) -> None:
        """Apply limits from now on. What was counted so far is kept."""
        self.policy = Policy(configuration)

    def admit(self, key: ApiKey | None, service: str, model: str, address: str, names: Sequence[str] = ()) -> Admission:
        """Return the admission of a request; `names` are further names of the model. Raises RateLimited."""
        limits = self.policy.limits(key, service, model, address, names)
        lease = f"{_PROCESS}-{next(_numbers)}"
        if not limits:
            return self._opened(Admission(self, service, limits, (), lease))
        decision = self.limiter.admit(limits, lease)
        if decision.refused:
            raise refusal(decision.refused, decision.retry_after, limit_headers(limits, decision.levels))
        for limit in limits:
            metrics.record_limit_decision(limit.scope, limit.unit, "admitted")
        return self._opened(Admission(self, service, limits, decision.levels, lease))

    def _opened(self, admission: Admission) -> Admission:
        if self.policy.has_instance_limits or any(limit.kind == "parallel" for limit in admission.limits):
            self.open[admission.lease] = admission
        return admission

    def admit_to_instance(self, service: str, instance: str, lease: str) -> RateLimited | None:
        """Charge the limits of an instance, or return the error of the one that refuses the request."""
        limits = self.policy.instance_limits(service, instance)
        if not limits:
            return None
        decision = self.limiter.admit(limits, lease)
        if decision.refused:
            return refusal(decision.refused, decision.retry_after, {})
        if admission := self.open.get(lease):
            admission.instances[instance] = limits
        else:  # the request has ended meanwhile
            self.limiter.finish(limits, 0, lease)
        return None

    def renew(self) -> None:
        """Keep the requests in progress in their limits of parallel requests. Call this several times a minute."""
        renewed = [(admission, limit) for admission in tuple(self.open.values()) for limit in admission.parallel()]
        self.limiter.renew([limit for _, limit in renewed], [admission.lease for admission, _ in renewed])
        for admission, limit in renewed:
            if admission.is_finished:  # while they were renewed
                self.limiter.finish([limit], 0, admission.lease)


def refusal(limit: Limit, seconds: float, headers: dict[str, str]) -> RateLimited:
    """Return the error for a request that a limit refuses, and record it."""
    metrics.record_limit_decision(limit.scope, limit.unit, "refused")
    per = {"bucket": "minute", "window": f"{limit.seconds:g} s", "day": "day"}.get(limit.kind)
    if limit.kind == "bucket":
        # A bucket admits its capacity at once, and then one request or token in `seconds`.
        number, text = 60 / limit.seconds, f"{60 / limit.seconds:g} per minute"
        if number < 1:
            text = f"one in {limit.seconds:g} s"
    else:
        text = f"{limit.capacity:g} per {per}" if per else f"{limit.capacity:g}"
    error = RateLimited(f"The limit of {_UNITS[limit.unit]} is reached ({limit.scope}: {text}); retry later", seconds)
    error.headers = headers
    return error


def limit_headers(limits: Sequence[Limit], levels: Sequence[Level]) -> dict[str, str]:
    """Return OpenAI's headers for the tightest limit of requests, and for that of tokens, if any."""
    found: dict[str, str] = {}
    for unit in ("requests", "tokens"):
        rows = [(level, limit) for limit, level in zip(limits, levels, strict=True) if limit.unit == unit]
        if not rows:
            continue
        level, limit = min(rows, key=lambda row: row[0].remaining / row[1].capacity)
        found[f"x-ratelimit-limit-{unit}"] = f"{limit.capacity:.0f}"
        found[f"x-ratelimit-remaining-{unit}"] = f"{max(0, math.floor(level.remaining + 1e-6))}"
        found[f"x-ratelimit-reset-{unit}"] = _duration(level.reset)
    return found


def _duration(seconds: float) -> str:
    """Return a time as OpenAI writes it: 120ms, 1.5s, 6m0s or 2h3m4s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}h' if hours else ''}{minutes}m{rest}s"
