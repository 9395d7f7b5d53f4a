"""Limits in the memory of one process. limits.lua is the same in Redis; the tests compare the two."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from frontend.gateway.limits.limit import LEASE_SECONDS, Decision, Level, Limit

_DAY = 86_400.0
# Unix times are exact to a quarter of a microsecond, and the errors of many additions add up.
_ROUNDING = 1e-4
_MAX_COUNTERS = 200_000


@dataclass(slots=True)
class _Counter:
    expires_at: float = 0.0
    """When the counter is as good as new."""
    at: float = 0.0
    """bucket: when the bucket is full again; window, day: the number of the window."""
    count: float = 0.0
    previous: float = 0.0
    """window: the count of the window before."""
    since: float = 0.0
    """bucket: when the warm-up began."""
    leases: dict[str, float] = field(default_factory=dict)


class MemoryLimiter:
    """Implements Limiter. `clock` returns the Unix time. No method waits, so greenlets need no lock."""

    def __init__(self, clock: Callable[[], float] = time.time, max_counters: int = _MAX_COUNTERS):
        self._clock, self._max_counters = clock, max_counters
        self._counters: dict[str, _Counter] = {}

    def __len__(self) -> int:
        return len(self._counters)

    def admit(self, limits: Sequence[Limit], lease: str) -> Decision:
        """Charge all limits, or none. See Limiter."""
        now = self._clock()
        counters = [self._counter(limit, now) for limit in limits]
        retry, refused = 0.0, None
        for limit, counter in zip(limits, counters, strict=True):
            if (seconds := _missing(limit, counter, now)) > retry:
                retry, refused = seconds, limit
        if refused is None:
            for limit, counter in zip(limits, counters, strict=True):
                _charge(limit, counter, now, limit.cost, lease)
                self._counters.setdefault(limit.name, counter)
            self._bound(now)
        return Decision(refused, retry, [_level(limit, c, now) for limit, c in zip(limits, counters, strict=True)])

    def charge(self, limits: Sequence[Limit], amount: float) -> None:
        """Charge all limits. See Limiter."""
        now = self._clock()
        for limit in limits:
            counter = self._counter(limit, now)
            _charge(limit, counter, now, amount, "")
            self._counters.setdefault(limit.name, counter)
        self._bound(now)

    def renew(self, limits: Sequence[Limit], leases: Sequence[str]) -> None:
        """Keep requests in progress. See Limiter."""
        now = self._clock()
        for limit, lease in zip(limits, leases, strict=True):
            counter = self._counter(limit, now)
            _charge(limit, counter, now, 1, lease)
            self._counters.setdefault(limit.name, counter)

    def finish(self, limits: Sequence[Limit], tokens: float, lease: str) -> None:
        """Charge the tokens, and remove the request. See Limiter."""
        if tokens:
            self.charge([limit for limit in limits if limit.unit == "tokens"], tokens)
        for limit in limits:
            if limit.kind == "parallel" and (counter := self._counters.get(limit.name)):
                counter.leases.pop(lease, None)
                if not counter.leases:
                    del self._counters[limit.name]

    def levels(self, limits: Sequence[Limit]) -> Sequence[Level]:
        """Return the remainder. See Limiter."""
        now = self._clock()
        return [_level(limit, self._counter(limit, now), now) for limit in limits]

    def check(self) -> None:
        """Do nothing. See Limiter."""

    def reset(self, limits: Sequence[Limit]) -> None:
        """Forget what was charged. See Limiter."""
        for limit in limits:
            self._counters.pop(limit.name, None)

    def _counter(self, limit: Limit, now: float) -> _Counter:
        """Return the counter of a limit, brought up to date."""
        counter = self._counters.get(limit.name) or _Counter(since=now)
        if limit.kind == "bucket":
            if limit.warm_up and now >= counter.expires_at:
                counter.since = now
        elif limit.kind == "parallel":
            if any(until <= now for until in counter.leases.values()):
                counter.leases = {lease: until for lease, until in counter.leases.items() if until > now}
        else:
            length = limit.seconds if limit.kind == "window" else _DAY
            number = float(now // length)
            if number != counter.at:
                counter.previous = counter.count if number == counter.at + 1 and limit.kind == "window" else 0.0
                counter.at, counter.count = number, 0.0
        return counter

    def _bound(self, now: float) -> None:
        """Forget counters that are as good as new and then, if there are too many, the ones that soonest will be."""
        if len(self._counters) <= self._max_counters:
            return
        kept = {name: counter for name, counter in self._counters.items() if counter.expires_at > now}
        if len(kept) > self._max_counters * 0.9:
            latest = sorted(kept, key=lambda name: kept[name].expires_at)[-int(self._max_counters * 0.9) :]
            kept = {name: kept[name] for name in latest}
        self._counters = kept


def _interval(limit: Limit, counter: _Counter, now: float) -> float:
    """Return the seconds in which one request is given back now."""
    if not limit.warm_up:
        return limit.seconds
    warmth = min(1.0, (now - counter.since) / limit.warm_up)
    return limit.seconds * (limit.cold_factor - (limit.cold_factor - 1) * warmth)


def _missing(limit: Limit, counter: _Counter, now: float) -> float:
    """Return the seconds until the limit may admit a request, or 0 if it does so now."""
    if limit.kind == "parallel":
        return 0.0 if len(counter.leases) + 1 <= limit.capacity else 1.0
    if limit.kind == "bucket":
        # The generic cell rate algorithm. A limit of tokens must not be in debt: then one token is left.
        interval = _interval(limit, counter, now)
        late = max(counter.at, now) + max(limit.cost, 1) * interval - now - limit.capacity * limit.seconds
        return late if late > _ROUNDING else 0.0
    used = counter.count + counter.previous * _overlap(limit, now)
    if used + max(limit.cost, 1) <= limit.capacity + _ROUNDING:
        return 0.0
    length = limit.seconds if limit.kind == "window" else _DAY
    rest = (counter.at + 1) * length - now
    if limit.kind == "day":
        return max(_ROUNDING, rest)
    if counter.count + 1 <= limit.capacity:
        # The part of the window before that still counts shrinks.
        return max(_ROUNDING, (used + 1 - limit.capacity) / counter.previous * length)
    # So does this window's, when it is the one before.
    return max(_ROUNDING, rest + (1 - max(0.0, limit.capacity - 1) / counter.count) * length)


def _overlap(limit: Limit, now: float) -> float:
    """Return the share of the window before that the sliding window covers."""
    return 1 - (now % limit.seconds) / limit.seconds if limit.kind == "window" else 0.0


def _charge(limit: Limit, counter: _Counter, now: float, amount: float, lease: str) -> None:
    if limit.kind == "parallel":
        counter.leases[lease] = now + LEASE_SECONDS
        counter.expires_at = now + LEASE_SECONDS
    elif limit.kind == "bucket":
        counter.at = max(counter.at, now) + amount * _interval(limit, counter, now)
        counter.expires_at = max(counter.at, now + limit.warm_up)
    else:
        length = limit.seconds if limit.kind == "window" else _DAY
        counter.count = max(0.0, counter.count + amount)
        counter.expires_at = (counter.at + (2 if limit.kind == "window" else 1)) * length


def _level(limit: Limit, counter: _Counter, now: float) -> Level:
    if limit.kind == "parallel":
        return Level(limit.capacity - len(counter.leases), 0.0)
    if limit.kind == "bucket":
        used = max(0.0, counter.at - now)
        interval = _interval(limit, counter, now)
        return Level((limit.capacity * limit.seconds - used) / interval, used)
    length = limit.seconds if limit.kind == "window" else _DAY
    used = counter.count + counter.previous * _overlap(limit, now)
    return Level(limit.capacity - used, (counter.at + 1) * length - now if used else 0.0)
