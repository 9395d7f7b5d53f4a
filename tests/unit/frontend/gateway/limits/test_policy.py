"""Which limits apply to a request."""

import re
import time
import tomllib

import pytest

from contract.paths import CHECKOUT
from frontend.gateway.configuration import Configuration, RateLimit, configuration_of, normalized
from frontend.gateway.keys import ApiKey
from frontend.gateway.limits.gate import Gate, _duration
from frontend.gateway.limits.limit import Limit
from frontend.gateway.limits.memory import MemoryLimiter
from frontend.gateway.limits.policy import Policy, limits_of
from frontend.request_usage import RequestUsage
from frontend.settings import Settings


def policy(**fields):
    return Policy(Configuration.model_validate(fields))


def names(limits):
    return [limit.name for limit in limits]


def test_all_scopes_apply_together():
    key = ApiKey("k", requests_per_minute=7, tokens_per_day=1000, parallel_requests=3)
    found = policy(
        rateLimit={"requestsPerDay": 9},
        clientRateLimit={"requestsPerMinute": 5},
        modelRateLimits={"org/m": {"tokensPerMinute": 50}},
        services={"chat": {"rateLimit": {"capacity": 4, "rate": 2}}},
    ).limits(key, "chat", "org/m", "10.0.0.1")
    assert names(found) == [
        "global:requests:day",
        "model:org/m:tokens:minute",
        "service:chat:bucket",
        "key:k:requests:minute",
        "key:k:tokens:day",
        "key:k:parallel",
        "client:10.0.0.1:requests:minute",
    ]
    assert [limit.scope for limit in found] == ["global", "model", "service", "key", "key", "key", "client"]


def test_other_services_and_models_have_no_limits():
    found = policy(services={"chat": {"rateLimit": {"capacity": 4}}}, modelRateLimits={"m": {"requestsPerDay": 1}})
    assert found.limits(None, "embedding", "n", "10.0.0.1") == ()


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("service", "service:chat:bucket"),
        ("model", "service:chat:model:m:bucket"),
        ("client-ip", "service:chat:client:10.0.0.1:bucket"),
    ],
)
def test_scope_selects_what_is_counted(scope, name):
    found = policy(services={"chat": {"rateLimit": {"capacity": 4, "scope": scope}}})
    assert names(found.limits(None, "chat", "m", "10.0.0.1")) == [name]


def test_scope_instance_counts_each_instance():
    found = policy(services={"chat": {"rateLimit": {"capacity": 4, "scope": "instance"}}})
    assert found.limits(None, "chat", "m", "10.0.0.1") == ()
    assert names(found.instance_limits("chat", "m@http://h:8000")) == ["service:chat:instance:m@http://h:8000:bucket"]


def test_instance_has_its_own_limits():
    instance = {"name": "m", "baseUrl": "http://h:8000", "rateLimit": {"requestsPerMinute": 6}}
    found = policy(instances=[instance])
    assert names(found.instance_limits("chat", "m@http://h:8000")) == ["instance:m@http://h:8000:requests:minute"]


def test_disabled_limits_do_not_apply():
    assert policy(rateLimit={"enabled": False, "capacity": 1}).limits(None, "chat", "m", "x") == ()


def test_client_ip_enable_adds_a_limit_for_each_client():
    found = policy(services={"chat": {"rateLimit": {"capacity": 4, "clientIpEnable": True}}})
    assert names(found.limits(None, "chat", "m", "x")) == ["service:chat:bucket", "service:chat:client:x:bucket"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("bucket", 100, 0.1, 0, 1)),
        ({"algorithm": "token_bucket", "capacity": 20, "refillRate": 4}, ("bucket", 20, 0.25, 0, 1)),
        ({"type": "leaky-bucket", "capacity": 20, "leak-rate": 2}, ("bucket", 20, 0.5, 0, 1)),
        ({"algorithm": "sliding-window", "windowSize": 30, "maxRequests": 12}, ("window", 12, 30, 0, 1)),
        ({"algorithm": "sliding_window", "rate": 2}, ("window", 120, 60, 0, 1)),
        ({"algorithm": "warm-up", "rate": 5, "warm-up-period": 60}, ("bucket", 100, 0.2, 60, 3)),
        ({"algorithm": "warm_up", "capacity": 1, "coldFactor": 2}, ("bucket", 2, 0.1, 300, 2)),
    ],
)
def test_algorithms_in_all_spellings(fields, expected):
    (limit,) = limits_of(RateLimit.model_validate(normalized(fields, "rateLimit")), "n", "global")
    assert (limit.kind, limit.capacity, limit.seconds, limit.warm_up, limit.cold_factor) == expected


def test_counters_survive_a_change_of_the_configuration():
    gate = Gate(MemoryLimiter())
    gate.configure(Configuration.model_validate({"rateLimit": {"requestsPerDay": 2}}))
    gate.admit(None, "chat", "m", "x")
    gate.configure(Configuration.model_validate({"rateLimit": {"requestsPerDay": 3}}))
    assert gate.admit(None, "chat", "m", "x").levels[0].remaining == 1


def test_headers_are_those_of_the_tightest_limit():
    gate = Gate(MemoryLimiter())
    limits = {"requestsPerDay": 1000, "requestsPerMinute": 4, "tokensPerMinute": 600}
    gate.configure(Configuration.model_validate({"rateLimit": limits}))
    admission = gate.admit(None, "chat", "m", "x")
    assert admission.headers() == {
        "x-ratelimit-limit-requests": "4",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "15s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "600",
        "x-ratelimit-reset-tokens": "0ms",
    }


def test_a_request_that_all_instances_refuse_costs_nothing():
    gate = Gate(MemoryLimiter())
    gate.configure(Configuration.model_validate({"rateLimit": {"requestsPerDay": 5}}))
    admission = gate.admit(None, "chat", "m", "x")
    admission.finish(RequestUsage(), was_refused=True)
    assert gate.admit(None, "chat", "m", "x").levels[0].remaining == 4


def test_finished_requests_are_charged_and_released():
    gate = Gate(MemoryLimiter())
    key = ApiKey("k", tokens_per_day=100, parallel_requests=1)
    admission = gate.admit(key, "chat", "m", "x")
    assert list(gate.open.values()) == [admission]
    admission.finish(RequestUsage(input_tokens=30, output_tokens=10), was_refused=False)
    assert gate.open == {}
    tokens = next(limit for limit in admission.limits if limit.unit == "tokens")
    assert gate.limiter.levels([tokens])[0].remaining == 60
    assert gate.admit(key, "chat", "m", "x")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.1201, "121ms"), (1.5, "1.5s"), (59, "59s"), (360, "6m0s"), (7384.2, "2h3m5s")]
)
def test_durations_are_written_as_openai_does(seconds, text):
    assert _duration(seconds) == text


def test_limits_are_hashable_and_comparable():
    assert Limit("a", "key", "tokens", "day", 1) == Limit("a", "key", "tokens", "day", 1)


def test_documented_settings_are_valid(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", (CHECKOUT / "docs/limits.md").read_text(encoding="utf-8"), re.DOTALL)
    limits = tomllib.loads(block)["rate_limits"]
    configuration = configuration_of(Settings(rate_limits=limits))
    assert configuration.rateLimit.parallelRequests == 64
    assert configuration.services["embedding"].rateLimit.maxRequests == 200
    found = Policy(configuration).limits(None, "embedding", "HuggingFaceTB/SmolLM2-135M-Instruct", "x")
    assert {limit.scope for limit in found} == {"global", "client", "service", "model"}


def test_limit_of_clients_is_no_limit_of_all():
    fields = {"scope": "client-ip", "capacity": 2}
    found = policy(rateLimit=fields, modelRateLimits={"m": fields})
    assert names(found.limits(None, "chat", "m", "10.0.0.1")) == [
        "global:client:10.0.0.1:bucket",
        "model:m:client:10.0.0.1:bucket",
    ]


def test_clients_with_ipv6_are_counted_by_network():
    found = policy(clientRateLimit={"requestsPerMinute": 5})
    first, second = (names(found.limits(None, "chat", "m", f"2001:db8::{end}")) for end in (1, 2))
    assert first == second == ["client:2001:db8::/64:requests:minute"]
    assert names(found.limits(None, "chat", "m", "::ffff:10.1.2.3")) == ["client:10.1.2.3:requests:minute"]


def test_model_limits_are_found_by_any_name():
    found = policy(modelRateLimits={"SmolLM": {"requestsPerDay": 1}})
    assert names(found.limits(None, "chat", "org/m", "x", ("m", "smollm"))) == ["model:org/m:requests:day"]


def test_limits_of_all_models_of_a_triton_apply_to_each():
    found = policy(instances=[{"baseUrl": "http://h:8000", "rateLimit": {"requestsPerMinute": 6}}])
    assert len(found.instance_limits("chat", "m@http://h:8000")) == 1


@pytest.mark.parametrize(
    ("fields", "algorithm"),
    [({"maxRequests": 2}, "sliding-window"), ({"coldFactor": 2}, "warm-up"), ({"rate": 2}, "token-bucket")],
)
def test_fields_choose_the_algorithm(fields, algorithm):
    assert RateLimit.model_validate(fields).algorithm == algorithm


def test_large_limits_of_keys_are_valid():
    key = ApiKey("k", requests_per_minute=10**12, parallel_requests=10**12)
    assert names(policy().limits(key, "chat", "m", "x")) == ["key:k:requests:minute", "key:k:parallel"]


class TestParallelRequestsOfInstances:
    @pytest.fixture
    def gate(self):
        gate = Gate(MemoryLimiter())
        instance = {"name": "m", "baseUrl": "http://h:8000", "rateLimit": {"parallelRequests": 1, "tokensPerDay": 10}}
        gate.configure(Configuration.model_validate({"instances": [instance]}))
        return gate

    def admitted(self, gate):
        admission = gate.admit(None, "stt", "m", "x")
        return admission, gate.admit_to_instance("stt", "m@http://h:8000", admission.lease)

    def test_are_renewed_and_released(self, gate):
        admission, refusal = self.admitted(gate)
        assert refusal is None
        gate.limiter._clock = lambda: time.time() + 40
        gate.renew()
        gate.limiter._clock = lambda: time.time() + 90
        assert self.admitted(gate)[1] is not None
        admission.finish(RequestUsage(instances={"m@http://h:8000": 4}), was_refused=False)
        assert self.admitted(gate)[1] is None

    def test_are_settled_as_they_were_charged(self, gate):
        admission, _ = self.admitted(gate)
        gate.configure(Configuration())
        admission.finish(RequestUsage(instances={"m@http://h:8000": 4}), was_refused=False)
        assert gate.limiter._counters.keys() == {"instance:m@http://h:8000:tokens:day"}

    def test_a_renewal_does_not_bring_back_a_finished_request(self, gate):
        admission, _ = self.admitted(gate)
        renew = gate.limiter.renew

        def slow(limits, leases):
            admission.finish(RequestUsage(), was_refused=False)
            renew(limits, leases)

        gate.limiter.renew = slow
        gate.renew()
        assert self.admitted(gate)[1] is None
