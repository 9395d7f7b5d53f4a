"""The limits in memory and in a real Redis, against simulations and against another implementation."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pyrate_limiter import GCRA, Duration, Rate, RateItem, StateBucket

from frontend.gateway.limits.limit import Limit
from frontend.gateway.limits.memory import MemoryLimiter
from frontend.gateway.limits.redis_limiter import _SCRIPT, RedisLimiter
from tests.support.redis_server import redis_server

START = 1_800_000_000.0
BUCKET = Limit("b", "global", "requests", "bucket", 5, 2.0)
WINDOW = Limit("w", "global", "requests", "window", 5, 10.0)
DAY = Limit("d", "key", "requests", "day", 5)
PARALLEL = Limit("p", "key", "parallel", "parallel", 2)
TOKENS = Limit("t", "key", "tokens", "bucket", 100, 0.6)


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def server():
    with redis_server() as server:
        yield server


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "redis"])
def limiter(request, clock):
    return MemoryLimiter(clock) if request.param == "memory" else redis_with(clock, request.getfixturevalue("server"))


def redis_with(clock, server):
    """Return a limiter that uses the real script with the test's clock in place of the server's."""
    limiter = RedisLimiter(server.url, 1)
    limiter._redis.flushall()

    def run(keys, arguments, client=None):
        now = f"{clock.now:.6f}".split(".")
        script = _SCRIPT.replace("redis.call('TIME')", f"{{'{now[0]}', '{now[1]}'}}")
        return (client or limiter._redis).eval(script, len(keys), *keys, *arguments)

    limiter._script = run
    return limiter


def admits(limiter, *limits, lease="x"):
    return limiter.admit(limits, lease).refused is None


def test_token_bucket_matches_a_simulation(limiter, clock):
    generator, tokens, last = random.Random(1), BUCKET.capacity, clock.now
    for _ in range(300):
        clock.now += generator.choice([0.0, 0.1, 0.5, 1.0, 3.0])
        tokens = min(BUCKET.capacity, tokens + (clock.now - last) / BUCKET.seconds)
        last = clock.now
        expected = tokens >= 1 - 5e-5
        tokens -= expected
        decision = limiter.admit([BUCKET], "x")
        assert (decision.refused is None) == expected
        assert decision.levels[0].remaining == pytest.approx(tokens, abs=1e-3)
        if not expected:
            assert decision.retry_after == pytest.approx((1 - tokens) * BUCKET.seconds, abs=1e-3)


def test_token_bucket_matches_pyrate_limiter(limiter, clock):
    bucket = StateBucket([Rate(5, Duration.SECOND * 10)], GCRA())
    generator = random.Random(2)
    for _ in range(300):
        clock.now += generator.choice([0.0, 0.25, 1.0, 2.5])
        item = RateItem("x", round((clock.now - START) * 1000), weight=1)
        assert admits(limiter, BUCKET) == bucket.put(item)


def test_sliding_window_matches_a_simulation(limiter, clock):
    generator, counts = random.Random(3), {}
    for _ in range(300):
        clock.now += generator.choice([0.0, 0.5, 2.0, 7.0])
        number = int(clock.now // 10)
        used = counts.get(number, 0) + counts.get(number - 1, 0) * (1 - clock.now % 10 / 10)
        expected = used + 1 <= WINDOW.capacity + 1e-6
        counts[number] = counts.get(number, 0) + expected
        assert admits(limiter, WINDOW) == expected


def test_request_is_admitted_after_retry_after_and_not_before(limiter, clock):
    for limit in (BUCKET, WINDOW, DAY):
        while admits(limiter, limit):
            pass
        wait = limiter.admit([limit], "x").retry_after
        clock.now += wait * 0.99
        assert not admits(limiter, limit)
        clock.now += wait * 0.01 + 1e-3
        assert admits(limiter, limit)


def test_day_ends_at_midnight_utc(limiter, clock):
    clock.now = START // 86_400 * 86_400 + 86_390
    assert [admits(limiter, DAY) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limiter.admit([DAY], "x").retry_after == pytest.approx(10, abs=1e-3)
    clock.now += 10
    assert admits(limiter, DAY)


def test_nothing_is_charged_if_one_limit_refuses(limiter):
    wide = replace(BUCKET, name="wide", capacity=100)
    for _ in range(5):
        assert admits(limiter, wide, BUCKET)
    for _ in range(10):
        assert limiter.admit([wide, BUCKET], "x").refused == BUCKET
    assert limiter.levels([wide])[0].remaining == pytest.approx(95, abs=0.1)


def test_refusal_names_the_limit_that_takes_longest(limiter):
    slow = replace(BUCKET, name="slow", capacity=1, seconds=60)
    fast = replace(BUCKET, name="fast", capacity=1, seconds=1)
    assert admits(limiter, fast, slow)
    decision = limiter.admit([fast, slow], "x")
    assert decision.refused == slow
    assert decision.retry_after == pytest.approx(60, abs=0.1)


def test_tokens_are_charged_later_and_may_go_into_debt(limiter, clock):
    assert admits(limiter, TOKENS)
    limiter.charge([TOKENS], 250)
    decision = limiter.admit([TOKENS], "x")
    assert decision.refused == TOKENS
    assert decision.levels[0].remaining == pytest.approx(-150, abs=0.1)
    assert decision.retry_after == pytest.approx(151 * 0.6, abs=0.1)
    clock.now += 151 * 0.6
    assert admits(limiter, TOKENS)


def test_charge_can_give_back(limiter):
    for limit in (BUCKET, DAY, WINDOW):
        assert all(admits(limiter, limit) for _ in range(5))
        assert not admits(limiter, limit)
        limiter.charge([limit], -1)
        assert admits(limiter, limit)


def test_parallel_requests_count_until_they_are_released(limiter):
    assert admits(limiter, PARALLEL, lease="1")
    assert admits(limiter, PARALLEL, lease="2")
    assert not admits(limiter, PARALLEL, lease="3")
    limiter.finish([PARALLEL], 0, "1")
    assert admits(limiter, PARALLEL, lease="3")


def test_parallel_requests_of_a_dead_process_expire_unless_they_are_renewed(limiter, clock):
    assert admits(limiter, PARALLEL, lease="dead")
    assert admits(limiter, PARALLEL, lease="alive")
    clock.now += 40
    limiter.renew([PARALLEL], ["alive"])
    clock.now += 30
    assert admits(limiter, PARALLEL, lease="new")
    assert not admits(limiter, PARALLEL, lease="another")


def test_warm_up_begins_slowly_and_begins_again_after_a_pause(limiter, clock):
    limit = Limit("warm", "global", "requests", "bucket", 10, 0.1, warm_up=100, cold_factor=4)

    def admitted(seconds):
        count = 0
        for _ in range(int(seconds * 100)):
            clock.now += 0.01
            count += admits(limiter, limit)
        return count

    assert sum(admits(limiter, limit) for _ in range(20)) == 2  # a quarter of 10
    assert 24 <= admitted(10) <= 31
    clock.now += 0.001
    for _ in range(90):
        clock.now += 1
        admits(limiter, limit)
    while admits(limiter, limit):
        pass
    assert 99 <= admitted(10) <= 101
    clock.now += 200
    assert sum(admits(limiter, limit) for _ in range(20)) == 2


def test_reset_forgets_what_was_charged(limiter):
    while admits(limiter, DAY):
        pass
    limiter.reset([DAY])
    assert limiter.levels([DAY])[0].remaining == 5


def test_memory_and_redis_decide_alike(server):
    clock = Clock()
    limiters = [MemoryLimiter(clock), redis_with(clock, server)]
    generator = random.Random(4)
    warm = Limit("warm", "global", "requests", "bucket", 6, 0.5, warm_up=20, cold_factor=3)
    limits = [BUCKET, WINDOW, DAY, PARALLEL, TOKENS, warm]
    for number in range(400):
        clock.now += generator.choice([0.0, 0.2, 1.0, 5.0, 70.0, 30_000.0] if number % 20 == 0 else [0.0, 0.2, 1.0])
        chosen = generator.sample(limits, generator.randint(1, len(limits)))
        action = generator.choice(["admit", "admit", "admit", "charge", "release"])
        if action == "admit":
            first, second = (each.admit(chosen, f"r{number}") for each in limiters)
            assert first.refused == second.refused
            assert first.retry_after == pytest.approx(second.retry_after, abs=1e-3)
            for one, other in zip(first.levels, second.levels, strict=True):
                assert tuple(one) == pytest.approx(tuple(other), abs=1e-2)
        elif action == "charge":
            for each in limiters:
                each.charge([TOKENS], 30)
        else:
            lease = f"r{number - generator.randint(1, 5)}"
            for each in limiters:
                each.finish([PARALLEL, TOKENS], 10, lease)


def test_number_of_counters_is_limited():
    clock = Clock()
    limiter = MemoryLimiter(clock, max_counters=1000)
    for number in range(5000):
        clock.now += 0.001
        assert admits(limiter, replace(BUCKET, name=f"client:{number}"))
    assert len(limiter) <= 1000
    # The newest counters are kept.
    assert limiter.levels([replace(BUCKET, name="client:4999")])[0].remaining == pytest.approx(4, abs=0.1)


class TestRedisFailures:
    @pytest.fixture
    def server(self):
        with redis_server() as server:
            yield server

    def test_each_process_counts_its_share_while_redis_is_down(self, server):
        limiter = RedisLimiter(server.url, processes=2)
        limit = Limit("x", "global", "requests", "day", 10)
        assert admits(limiter, limit)
        server.kill()
        assert [admits(limiter, limit) for _ in range(7)] == [True] * 5 + [False] * 2
        assert not limiter.is_up

    def test_limits_are_shared_again_when_redis_is_back(self, server):
        limiter = RedisLimiter(server.url, processes=2)
        limit = Limit("x", "global", "requests", "day", 10)
        server.kill()
        assert admits(limiter, limit)
        server.start()
        limiter._down_until = 0
        assert [admits(limiter, limit) for _ in range(12)] == [True] * 10 + [False] * 2
        assert limiter.is_up

    def test_a_redis_that_hangs_delays_one_request_a_second(self, server):
        limiter = RedisLimiter(server.url, processes=1)
        limit = Limit("x", "global", "requests", "day", 10)
        assert admits(limiter, limit)
        server.hang()
        assert admits(limiter, limit)
        calls = []
        limiter._run = lambda *_, **__: calls.append(1)
        assert admits(limiter, limit)
        assert calls == []  # Redis is not asked again for a second
        server.go_on()

    def test_only_one_request_tries_a_redis_that_hangs(self, server):
        limiter = RedisLimiter(server.url, processes=1)
        limit = Limit("x", "global", "requests", "day", 100)
        server.hang()
        assert admits(limiter, limit)
        limiter._down_until = 0
        with ThreadPoolExecutor(8) as pool:
            started = time.monotonic()
            times = list(pool.map(lambda _: admits(limiter, limit) and time.monotonic() - started, range(8)))
        assert sum(seconds > 0.2 for seconds in times) == 1
        server.go_on()

    def test_warm_up_admits_requests_while_redis_is_down(self, server):
        limiter = RedisLimiter(server.url, processes=4)
        server.kill()
        limit = Limit("x", "global", "requests", "bucket", 8, 0.1, warm_up=300, cold_factor=3)
        assert admits(limiter, limit)

    def test_a_flushed_script_is_loaded_again(self, server):
        limiter = RedisLimiter(server.url, processes=1)
        limit = Limit("x", "global", "requests", "day", 2)
        assert admits(limiter, limit)
        limiter._redis.script_flush()
        assert admits(limiter, limit)
        assert not admits(limiter, limit)
