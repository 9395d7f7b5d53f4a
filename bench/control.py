"""Benchmark of API keys and limits.

`make bench BENCH=control` compares frontends at the same Triton, in turns: one without keys and limits, and one with a
key that has limits of requests, tokens and parallel requests, with global and model limits, and with the usage written
to the store; the limits are in memory, and in Redis. It also measures the check of a key among 100,000, and eight
limits.
"""

import argparse
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from bench.clients import run_clients
from bench.gateway import EMBEDDING, TEXT, report, running_frontend, take_turns
from frontend.gateway.keys import KeyRing, Pepper
from frontend.gateway.limits.limit import Limit
from frontend.gateway.limits.memory import MemoryLimiter
from frontend.gateway.limits.redis_limiter import RedisLimiter
from frontend.settings import Settings
from tests.support.live import MODEL, url
from tests.support.load import chat_body, run_streams
from tests.support.redis_server import RedisServer, redis_server
from tests.support.tritons import running_tritons

_BODY = orjson.dumps({"model": EMBEDDING, "input": TEXT})
_CLIENTS, _STREAMS, _TOKENS = 16, 16, 100
_MANY = 10**9
_LIMITS = {
    "global": {"requestsPerMinute": _MANY, "parallelRequests": 10**6},
    "services": {"embedding": {"capacity": 10**6, "rate": 10**6}, "chat": {"capacity": 10**6, "rate": 10**6}},
}
_KEY_LIMITS = {
    "rateLimitPerMinute": _MANY,
    "tokensPerMinute": _MANY,
    "dailyTokenLimit": _MANY,
    "parallelRequests": 1000,
}


def _create_key(settings: Settings) -> str:
    """Create a user key with limits, and return it."""
    request = urllib.request.Request(
        url(settings, "/api/auth/api-keys"), orjson.dumps(_KEY_LIMITS), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        key: str = orjson.loads(response.read())["data"]["keyValue"]
        return key


def _rate(settings: Settings, key: str) -> float:
    return run_clients(settings.port, "/v1/embeddings", [_BODY] * 1500, _CLIENTS, api_key=key).requests_per_second


def _tokens(settings: Settings, key: str) -> float:
    bodies = [chat_body(MODEL, f"Tell me story {i}.", _TOKENS) for i in range(_STREAMS)]
    return run_streams(settings.port, bodies, key=key).tokens_per_second


def _compare(rounds: int, redis: RedisServer) -> None:
    with running_tritons(1, [MODEL, EMBEDDING]) as tritons, ExitStack() as stack:
        plain = stack.enter_context(running_frontend(tritons))
        contenders: dict[str, dict[str, Any]] = {"memory": {}, "Redis": {"redis_url": redis.url}}
        for name, options in contenders.items():
            settings = stack.enter_context(running_frontend(tritons, rate_limits=_LIMITS, **options))
            key = _create_key(settings)
            for what, unit, measure in (
                ("embeddings, 16 clients", "requests/s", _rate),
                ("16 streamed chats", "tokens/s", _tokens),
            ):
                measures = [partial(measure, settings, key), partial(measure, plain, "")]
                report(f"{what}, keys and limits in {name}, and without", unit, take_turns(rounds, measures))


def _microseconds(work: Callable[[], object], count: int = 20_000) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(count // 5):
            work()
        times.append((time.perf_counter() - started) / (count // 5))
    return 1e6 * statistics.median(times)


class _Row:
    """A row of the table of keys."""

    previous_digest = previous_until = None
    content = "{}"

    def __init__(self, identifier: int, digest: bytes):
        self.id, self.digest = str(identifier), digest


def _parts(redis: RedisServer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pepper = Pepper(Path(folder) / "pepper")
        pepper.create()
        for count in (10, 100_000):
            ring = KeyRing(pepper)
            ring.apply(_Row(number, pepper.digest(f"tr-{number:040}")) for number in range(count))
            key = f"tr-{count // 2:040}"
            took = _microseconds(lambda ring=ring, key=key: ring.find(key).is_valid("127.0.0.1"))  # type: ignore[misc]
            print(f"  check of a key among {count:,}: {took:.1f} µs (limit 20)", flush=True)
    limits = [Limit(f"l{number}", "key", "requests", "bucket", _MANY, 1e-6) for number in range(8)]
    memory, shared = MemoryLimiter(), RedisLimiter(redis.url, 1)
    print(f"  eight limits in memory: {_microseconds(lambda: memory.admit(limits, '')):.1f} µs", flush=True)
    print(f"  eight limits in Redis: {_microseconds(lambda: shared.admit(limits, ''), 2000):.1f} µs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with redis_server() as redis:
        _parts(redis)
        _compare(options.rounds, redis)


if __name__ == "__main__":
    main()
