"""Limits in Redis or Valkey, which all processes and machines share. Without Redis, each process has its own share."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from frontend import metrics
from frontend.gateway.limits.limit import Decision, Level, Limit
from frontend.gateway.limits.memory import MemoryLimiter

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_TIMEOUT_SECONDS, _RETRY_SECONDS = 0.25, 1.0
_MAX_CONNECTIONS = 64
_SCRIPT = Path(__file__).with_name("limits.lua").read_text(encoding="utf-8")
# All keys of a call must be in the same slot of a Redis Cluster, which the part in braces determines.
_PREFIX = "{trident}:limit:"


class RedisLimiter:
    """Implements Limiter. `processes` is how many processes share the limits while Redis does not respond."""

    def __init__(self, url: str, processes: int):
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._redis = redis.Redis(connection_pool=pool, retry=Retry(NoBackoff(), 0))
        self._script = self._redis.register_script(_SCRIPT)
        self._processes = processes
        self._local = MemoryLimiter()
        self._down_until = 0.0
        self._is_up = True
        metrics.set_redis_up(True)

    @property
    def is_up(self) -> bool:
        """Whether Redis has responded to the last request."""
        return self._is_up

    def admit(self, limits: Sequence[Limit], lease: str) -> Decision:
        """Charge all limits, or none. See Limiter."""
        if not limits:
            return Decision(None, 0.0, [])
        return self._try(
            lambda: _read_decision(limits, self._run("admit", limits, lease)),
            lambda: self._local.admit(self._shares(limits), lease),
        )

    def charge(self, limits: Sequence[Limit], amount: float) -> None:
        """Charge all limits. See Limiter."""
        if limits:
            self._try(
                lambda: self._run("charge", limits, amount=amount),
                lambda: self._local.charge(self._shares(limits), amount),
            )

    def renew(self, limits: Sequence[Limit], leases: Sequence[str]) -> None:
        """Keep requests in progress. See Limiter."""
        if not limits:
            return

        def renew() -> None:
            with self._redis.pipeline(transaction=False) as pipeline:
                for limit, lease in zip(limits, leases, strict=True):
                    self._script([_PREFIX + limit.name], _arguments("charge", [limit], lease, 1), client=pipeline)
                pipeline.execute()

        self._try(renew, lambda: self._local.renew(self._shares(limits), leases))

    def finish(self, limits: Sequence[Limit], tokens: float, lease: str) -> None:
        """Charge the tokens, and remove the request. See Limiter."""
        wanted = [limit for limit in limits if limit.kind == "parallel" or (limit.unit == "tokens" and tokens)]
        if not wanted:
            return
        if len(self._local):
            self._local.finish([limit for limit in wanted if limit.kind == "parallel"], 0, lease)
        self._try(
            lambda: self._run("finish", wanted, lease, tokens),
            lambda: self._local.charge(self._shares([limit for limit in wanted if limit.unit == "tokens"]), tokens),
        )

    def levels(self, limits: Sequence[Limit]) -> Sequence[Level]:
        """Return the remainder. See Limiter."""
        if not limits:
            return []
        return self._try(
            lambda: _read_decision(limits, self._run("levels", limits)).levels,
            lambda: self._local.levels(self._shares(limits)),
        )

    def check(self) -> None:
        """Try Redis again if it did not respond. See Limiter."""
        if not self._is_up:
            self._try(self._redis.ping, lambda: None)

    def reset(self, limits: Sequence[Limit]) -> None:
        """Forget what was charged. See Limiter."""
        if limits:
            self._local.reset(limits)
            self._try(lambda: self._delete(limits), lambda: None)

    def _delete(self, limits: Sequence[Limit]) -> None:
        self._redis.delete(*(_PREFIX + limit.name for limit in limits))

    def _run(self, operation: str, limits: Sequence[Limit], lease: str = "", amount: float = 0) -> Any:
        return self._script([_PREFIX + limit.name for limit in limits], _arguments(operation, limits, lease, amount))

    def _try(self, shared: Callable[[], Result], local: Callable[[], Result]) -> Result:
        """Return the result of `shared`, or of `local` while Redis does not respond, which is tried once a second."""
        now = time.monotonic()
        if now < self._down_until:
            return local()
        if not self._is_up:
            self._down_until = now + _RETRY_SECONDS  # the other requests do not wait for this try
        try:
            result = shared()
        except (redis.RedisError, OSError) as error:
            self._down_until = now + _RETRY_SECONDS
            if self._is_up:
                log.error("Redis does not respond, so each process now counts its share of the limits: %s", error)
                metrics.set_redis_up(False)
            self._is_up = False
            return local()
        if not self._is_up:
            self._down_until = 0.0
            log.warning("Redis responds again")
            metrics.set_redis_up(True)
        self._is_up = True
        return result

    def _shares(self, limits: Sequence[Limit]) -> list[Limit]:
        """Return this process's share of the limits."""
        return [
            replace(
                limit,
                capacity=max(1.0, limit.cold_factor, limit.capacity / self._processes),
                seconds=limit.seconds * self._processes if limit.kind == "bucket" else limit.seconds,
            )
            for limit in limits
        ]


def _arguments(operation: str, limits: Sequence[Limit], lease: str, amount: float) -> list[Any]:
    return [operation, lease, amount, *(limit.encoded for limit in limits)]


def _read_decision(limits: Sequence[Limit], values: Sequence[bytes]) -> Decision:
    refused = int(values[0])
    levels = [Level(*map(float, value.split())) for value in values[2:]]
    return Decision(limits[refused - 1] if refused else None, float(values[1]), levels)
