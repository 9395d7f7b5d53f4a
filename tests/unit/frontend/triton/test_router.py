"""Requests to several Tritons: the choice, retries, waiting, breakers, removal and reload, with fake Tritons."""

import threading
import time

import numpy as np
import pytest

from frontend.errors import (
    APIError,
    CircuitBreakerOpen,
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    ServiceUnavailable,
    Unavailable,
)
from frontend.instance_config import parse_instances
from frontend.settings import Settings
from frontend.triton.registry import Registry
from frontend.triton.reload import Reloader
from frontend.triton.router import Group, Router, service_of
from frontend.triton.status import StubDied
from tests.unit.conftest import FakeTriton, chat, delta, last

A, B, C = "http://a:8000", "http://b:8000", "http://c:8000"
LOST = Unavailable("The connection was lost")


class OneTriton(FakeTriton):
    """A Triton that records what is loaded and unloaded. Each call is answered by `answers()`."""

    def __init__(self):
        super().__init__()
        self.answers = lambda: [last("ok")]
        self.log = []
        self.probe_error = None

    def stream(self, model, inputs, **options):
        if not self.queued_calls:
            self.queue_response(*self.answers())
        return super().stream(model, inputs, **options)

    def probe(self, model, inputs, *, batched, timeout):
        if self.probe_error:
            raise self.probe_error

    def load(self, model, timeout):
        self.log.append(f"load {model}")

    def unload(self, model, timeout):
        self.log.append(f"unload {model}")

    def close(self):
        self.log.append("close")


class Gateway:
    """A router with fake Tritons."""

    def __init__(self, tmp_path, urls, **options):
        entries = parse_instances(urls)
        options = {"recovery_seconds": 0, "slow_start_seconds": 0, "instance_drain_seconds": 0.3} | options
        self.settings = Settings(cache=tmp_path, instances=entries, **options)
        self.tritons = {}
        self.registry = Registry(self.settings, self.connect)
        self.router = Router(self.settings, self.registry)
        self.registry.models()

    def connect(self, address):
        return self.tritons.setdefault(address.base_url, OneTriton())

    def instance(self, url, model="tiny-chat"):
        return next(each for each in self.registry.instances(model) if each.base_url == url)

    def upstream(self, url):
        return next(each for each in self.registry.upstreams if each.address.base_url == url)

    def start(self, model="tiny-chat", **options):
        found = self.registry.require(model, model.rpartition("-")[2])
        inputs = {"messages": b"[]", "sampling_parameters": b"{}"}
        return self.router.stream(found, inputs, request_id="1", **{"timeout": 5.0} | options)

    def ask(self, **options):
        """Return the URL of the Triton that answered a request."""
        before = {url: len(triton.requests) for url, triton in self.tritons.items()}
        call = self.start(**options)
        while call.next() is not None:
            pass
        return next(url for url, triton in self.tritons.items() if len(triton.requests) > before[url])

    def count(self):
        return {url: len(triton.requests) for url, triton in self.tritons.items()}


@pytest.fixture
def make(tmp_path):
    return lambda *urls, **options: Gateway(tmp_path, urls or (A, B), **options)


def responses(call):
    found = []
    while (response := call.next()) is not None:
        found.append(response["text_output"])
    return found


class TestRetries:
    def test_lost_request_goes_to_the_other_instance(self, make):
        gateway = make(load_balance={"chat": "round-robin"})
        gateway.tritons[A].queue_response(LOST)
        assert [responses(gateway.start()) for _ in range(2)] == [["ok"], ["ok"]]
        assert gateway.count() == {A: 1, B: 2}

    def test_begun_response_is_not_repeated(self, make):
        gateway = make(A)
        gateway.tritons[A].queue_response(delta("One"), LOST)
        call = gateway.start()
        assert call.next()["text_output"] == "One"
        with pytest.raises(Unavailable):
            call.next()
        assert call.next() is None
        assert len(gateway.tritons[A].requests) == 1

    def test_response_that_is_sent_as_a_whole_is_repeated_until_it_is_complete(self, make):
        gateway = make(load_balance={"chat": "round-robin"})
        gateway.tritons[A].queue_response(delta("One"), delta("Two"), LOST)
        gateway.tritons[B].queue_response(delta("Three"), last("Four"))
        assert responses(gateway.start(whole=True)) == ["Three", "Four"]
        assert gateway.count() == {A: 1, B: 1}

    def test_wait_returns_at_the_first_response_of_a_call_that_is_sent_as_a_whole(self, make):
        gateway = make(A)
        gateway.tritons[A].queue_response(delta("One"), last("Two"))
        call = gateway.start(whole=True)
        call.wait()
        assert responses(call) == ["One", "Two"]

    def test_request_is_sent_three_times_at_most(self, make):
        gateway = make(A, B, C, "http://d:8000")
        for triton in gateway.tritons.values():
            triton.answers = lambda: [LOST]
        with pytest.raises(Unavailable):
            gateway.start().next()
        assert sum(gateway.count().values()) == 3

    @pytest.mark.parametrize("error", [InvalidRequest("no"), DeadlineExceeded("late")], ids=["invalid", "late"])
    def test_other_errors_are_returned(self, make, error):
        gateway = make()
        for triton in gateway.tritons.values():
            triton.answers = lambda: [error]
        with pytest.raises(type(error)):
            gateway.start().next()
        assert sum(gateway.count().values()) == 1

    def test_failures_are_sent_again_for_a_tenth_of_the_requests(self, make):
        """At first, ten requests can be sent again; from then on, one of ten."""
        gateway = make(failure_threshold=10_000)
        for triton in gateway.tritons.values():
            triton.answers = lambda: [EngineFailure("broken")]
        for _ in range(200):
            with pytest.raises(EngineFailure):
                gateway.start().next()
        assert 200 + 10 + 18 <= sum(gateway.count().values()) <= 200 + 10 + 20

    def test_failure_of_the_only_instance_is_not_repeated(self, make):
        gateway = make(A)
        gateway.tritons[A].answers = lambda: [EngineFailure("broken")]
        with pytest.raises(EngineFailure):
            gateway.start().next()
        assert gateway.count() == {A: 1}

    def test_full_instance_is_passed_over_without_counting_as_failed(self, make):
        gateway = make(failure_threshold=1)
        gateway.tritons[A].answers = lambda: [Overloaded("full")]
        for _ in range(4):
            responses(gateway.start())
        assert gateway.count()[B] == 4
        assert gateway.instance(A).breaker_state == "closed"

    def test_full_instances_are_all_tried(self, make):
        urls = [f"http://{name}:8000" for name in "abcdefgh"]
        gateway = make(*urls)
        for url in urls[:-1]:
            gateway.tritons[url].answers = lambda: [Overloaded("full")]
        for _ in range(50):
            assert responses(gateway.start()) == ["ok"]
        gateway.tritons[urls[-1]].answers = lambda: [Overloaded("full")]
        with pytest.raises(Overloaded):
            gateway.start().next()

    def test_request_that_cannot_be_sent_is_not_left_in_progress(self, make):
        gateway = make(A)
        gateway.tritons[A].stream = lambda *_, **__: raise_error(ValueError("the channel is closed"))
        with pytest.raises(ValueError, match="closed"):
            gateway.start()
        assert gateway.instance(A).active == 0

    def test_batched_request_is_repeated(self, make):
        gateway = make()
        gateway.tritons[A].infer_failures = dict.fromkeys(range(9), LOST)
        model = gateway.registry.require("tiny-embedding", "embedding")
        for _ in range(2):
            sent = gateway.router.infer(model, {"text": [b"Hi"]}, request_id="1", timeout=5.0, parameters={})
            assert sent.result()["embedding"].dtype == np.float32

    def test_cancelled_request_is_not_repeated(self, make):
        gateway = make(A)
        gateway.tritons[A].queue_response(LOST)
        call = gateway.start()
        call.cancel()
        assert call.next() is None
        assert gateway.count() == {A: 1}
        assert gateway.instance(A).active == 0


class TestWaiting:
    def test_requests_wait_for_an_instance_that_recovers(self, make):
        gateway = make(A, recovery_seconds=5)
        gateway.instance(A).died("killed")
        threading.Timer(0.3, gateway.instance(A).responded).start()
        call = gateway.start()
        assert responses(call) == ["ok"]
        assert 0.2 < call.take_queue_seconds() < 3

    def test_lost_request_waits_until_its_instance_has_recovered(self, make):
        """The instance that lost the request gets it again, but only after it has recovered."""
        gateway = make(A, recovery_seconds=5)
        gateway.tritons[A].queue_response(LOST)
        call = gateway.start()
        threading.Timer(0.3, gateway.instance(A).responded).start()
        assert responses(call) == ["ok"]
        assert gateway.count() == {A: 2}

    def test_requests_fail_when_the_time_to_recover_is_over(self, make):
        gateway = make(A, recovery_seconds=0.2)
        gateway.instance(A).died("killed")
        with pytest.raises(ServiceUnavailable, match="not available"):
            gateway.start().next()

    def test_requests_in_progress_fail_when_their_process_dies_and_are_sent_again(self, make):
        gateway = make()
        first = gateway.start()
        died = next(each for each in gateway.registry.instances("tiny-chat") if each.active)
        died.died("killed")
        assert died.active == 1
        assert responses(first) == ["ok"]
        assert died.active == 0
        assert set(gateway.count().values()) == {1}

    def test_requests_that_wait_together_fail_together(self, make):
        gateway = make(A, recovery_seconds=0.3)
        gateway.instance(A).died("killed")
        calls, started = [gateway.start() for _ in range(10)], time.monotonic()
        for call in calls:
            with pytest.raises(ServiceUnavailable):
                call.next()
        assert time.monotonic() - started < 1.5

    def test_no_instance_is_an_error_at_once(self, make):
        gateway = make(A, recovery_seconds=5)
        gateway.instance(A).enabled = False
        with pytest.raises(ServiceUnavailable, match="No instance"):
            gateway.start()


class TestBreaker:
    def test_opens_rejects_tries_and_closes(self, make):
        gateway = make(A, failure_threshold=3, success_threshold=2, breaker_seconds=0.3)
        gateway.tritons[A].answers = lambda: [EngineFailure("broken")]
        for _ in range(3):
            with pytest.raises(EngineFailure):
                gateway.start().next()
        with pytest.raises(CircuitBreakerOpen) as caught:
            gateway.start()
        assert 0 < caught.value.retry_after <= 0.34
        assert gateway.count() == {A: 3}
        gateway.tritons[A].answers = lambda: [last("ok")]
        time.sleep(0.35)
        assert responses(gateway.start()) == ["ok"]
        assert gateway.instance(A).breaker_state == "half_open"
        assert responses(gateway.start()) == ["ok"]
        assert gateway.instance(A).breaker_state == "closed"

    def test_others_take_the_requests_of_an_open_one(self, make):
        gateway = make(failure_threshold=1, breaker_seconds=60.0)
        gateway.tritons[A].answers = lambda: [EngineFailure("broken")]
        for _ in range(10):
            responses(gateway.start())
        assert gateway.instance(A).breaker_state == "open"
        assert gateway.count()[A] == 1

    @pytest.mark.parametrize("whole", [False, True])
    def test_trial_succeeds_at_its_first_response(self, make, whole):
        gateway = make(A, failure_threshold=1, success_threshold=1, breaker_seconds=0.05)
        gateway.tritons[A].queue_response(EngineFailure("broken"))
        with pytest.raises(EngineFailure):
            gateway.start().next()
        time.sleep(0.1)
        gateway.tritons[A].queue_response(delta("One"), last("Two"))
        call = gateway.start(whole=whole)
        call.wait()
        assert gateway.instance(A).breaker_state == "closed"

    def test_recovery_after_a_crash_closes_it(self, make):
        gateway = make(A, failure_threshold=1)
        gateway.tritons[A].queue_response(LOST)
        with pytest.raises(Unavailable):
            gateway.start().next()
        assert gateway.instance(A).breaker_state == "open"
        gateway.instance(A).died("killed")
        gateway.instance(A).responded()
        assert gateway.instance(A).breaker_state == "closed"


class TestChoice:
    def test_choices_of_one_request_go_together(self, make):
        gateway = make(load_balance={"chat": "round-robin"})
        group = Group()
        assert len({gateway.ask(group=group) for _ in range(4)}) == 1

    @pytest.mark.parametrize("strategy", ["prefix-affinity", "consistent-hash"])
    def test_requests_with_the_same_cache_key_go_to_the_same_instance(self, make, strategy):
        gateway = make(load_balance={"chat": strategy})
        chosen = [[gateway.ask(cache_key=f"key {index}") for _ in range(3)] for index in range(16)]
        assert all(len(set(each)) == 1 for each in chosen)
        assert len({each[0] for each in chosen}) == 2

    def test_slow_instance_gets_less(self, make):
        """Requests that are still in progress count as load."""
        gateway = make()
        started = [gateway.start() for _ in range(4)]
        slow = gateway.instance(A)
        for call in [each for each in started if each._lease.instance is not slow]:
            responses(call)
        assert [gateway.ask() for _ in range(2)] == [B, B]

    def test_tables_stay_small_with_100_000_addresses(self, make):
        gateway = make(load_balance={"chat": "ip-hash"})
        for index in range(100_000):
            key = gateway.router._key("chat", f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", "", {})
            attempt = type("", (), {"service": "chat", "model": gateway.instance(A).model})
            gateway.router._balancer(attempt).choose(gateway.registry.instances("tiny-chat"), key)
        assert len(gateway.router._balancers) == 1

    def test_odd_weights_are_rejected_and_recover(self, make, monkeypatch):
        gateway = make(A, B, C)
        config = gateway.tritons[B].config
        gateway.tritons[B].config = lambda model: _other(config, model)
        gateway.upstream(B).models.clear()
        gateway.registry.refresh()
        gateway.registry.models()
        assert "differ" in gateway.instance(B).rejection
        assert B not in {gateway.ask() for _ in range(12)}
        gateway.tritons[B].config = config
        gateway.upstream(B).models.clear()
        gateway.registry.refresh()
        gateway.registry.models()
        assert gateway.instance(B).rejection == ""
        assert B in {gateway.ask() for _ in range(12)}

    def test_odd_weights_get_no_request_even_before_the_models_are_listed(self, make, monkeypatch):
        gateway = make(A)
        odd = OneTriton()
        config = odd.config
        odd.config = lambda model: _other(config, model)
        gateway.tritons[B] = odd
        gateway.router.configure(parse_instances([A, B]))
        gateway.upstream(B).refresh(force=True)
        assert {gateway.ask() for _ in range(8)} == {A}

    def test_rejected_instance_gets_requests_when_the_others_are_gone(self, make):
        gateway = make(A, B)
        config = gateway.tritons[B].config
        gateway.tritons[B].config = lambda model: _other(config, model)
        gateway.upstream(B).models.clear()
        gateway.registry.refresh()
        assert {gateway.ask() for _ in range(4)} == {A}
        gateway.router.configure(parse_instances([B]))
        assert {gateway.ask() for _ in range(4)} == {B}

    def test_probes_alone_take_away_no_more_than_half(self, make):
        gateway = make(A, B, C)
        for url in (A, B):
            gateway.instance(url).went_down("no response", is_doubtful=True)
        assert {gateway.ask() for _ in range(12)} == {A, B, C}
        gateway.instance(A).responded()
        assert {gateway.ask() for _ in range(12)} == {A, C}

    def test_proof_of_death_takes_away_all(self, make):
        gateway = make(A, B)
        for url in (A, B):
            gateway.instance(url).died("killed")
        with pytest.raises(ServiceUnavailable):
            gateway.start().next()


def _other(read, model):
    config = read(model)
    config.SerializeToString = lambda deterministic: b"other weights"
    return config


class TestHealth:
    def probe(self, gateway, url, error):
        gateway.tritons[url].probe_error = error
        gateway.upstream(url)._probe(gateway.instance(url))

    def test_dead_process_is_loaded_again(self, make):
        gateway = make()
        self.probe(gateway, A, StubDied("not healthy"))
        assert not gateway.instance(A).is_up
        assert gateway.tritons[A].log == ["unload tiny-chat", "load tiny-chat"]
        self.probe(gateway, A, None)
        assert gateway.instance(A).is_up

    def test_second_probe_without_a_response_takes_an_instance_for_dead(self, make):
        gateway = make()
        self.probe(gateway, A, DeadlineExceeded("late"))
        assert gateway.instance(A).is_up
        self.probe(gateway, A, DeadlineExceeded("late"))
        assert gateway.instance(A).is_doubtful
        assert not gateway.instance(A).is_up

    def test_busy_batched_model_is_not_taken_for_dead(self, make):
        """A probe queues behind batches, which can take long."""
        gateway = make(A)
        instance = gateway.instance(A, "tiny-embedding")
        gateway.tritons[A].probe_error = DeadlineExceeded("late")
        instance.model.__dict__["batched"] = True
        model = gateway.registry.require("tiny-embedding", "embedding")
        sent = gateway.router.infer(model, {"text": [b"Hi"]}, request_id="1", timeout=5.0, parameters={})
        for _ in range(5):
            gateway.upstream(A)._probe(instance)
        assert instance.is_up
        sent.result()

    def test_rejected_probe_proves_that_the_backend_runs(self, make):
        gateway = make()
        self.probe(gateway, A, InvalidRequest("unknown parameter"))
        assert gateway.instance(A).is_up

    def test_triton_that_does_not_respond_twice_fails_its_requests(self, make):
        gateway = make()
        gateway.tritons[A].down = DeadlineExceeded("late")
        for expected in (True, False):
            gateway.upstream(A).refresh(force=True)
            assert gateway.instance(A).is_up is expected
        gateway.tritons[A].down = None
        gateway.upstream(A).refresh(force=True)
        self.probe(gateway, A, None)
        assert gateway.instance(A).is_up

    def test_model_that_cannot_be_loaded_at_once_is_loaded_later(self, make, monkeypatch):
        monkeypatch.setattr("frontend.triton.revival._FIRST_PAUSE", 0.01)
        gateway = make()
        failures = [APIError("busy"), APIError("busy")]
        load = gateway.tritons[A].load
        gateway.tritons[A].load = lambda *given: raise_error(failures.pop()) if failures else load(*given)
        self.probe(gateway, A, StubDied("not healthy"))
        assert gateway.tritons[A].log == ["unload tiny-chat"] * 3 + ["load tiny-chat"]

    def test_recovered_instance_gets_its_share_slowly(self, make):
        gateway = make(slow_start_seconds=100.0)
        assert gateway.instance(A).weight == 1.0
        gateway.instance(A).died("killed")
        gateway.instance(A).responded()
        assert gateway.instance(A).weight == pytest.approx(0.1, abs=0.01)

    def test_new_process_reads_the_models_before_it_answers(self, make):
        gateway = make(A)
        registry = Registry(gateway.settings, gateway.connect)
        (upstream,) = registry.upstreams
        upstream.is_watched = True  # the thread has not read the index yet
        assert registry.models()


class TestConfigure:
    def test_added_instance_gets_requests_slowly(self, make):
        gateway = make(A, slow_start_seconds=100.0)
        gateway.router.configure(parse_instances([A, B]))
        gateway.registry.models()
        assert gateway.instance(B).weight == pytest.approx(0.1, abs=0.01)
        assert {gateway.ask() for _ in range(40)} == {A, B}

    def test_removed_triton_finishes_its_requests_and_is_closed(self, make):
        gateway = make(instance_drain_seconds=5.0)
        calls = [gateway.start(), gateway.start()]
        gateway.router.watch()
        gateway.router.configure(parse_instances([B]))
        assert {gateway.ask() for _ in range(4)} == {B}
        time.sleep(0.4)
        assert "close" not in gateway.tritons[A].log
        assert [responses(call) for call in calls] == [["ok"], ["ok"]]
        wait_until(lambda: "close" in gateway.tritons[A].log)
        gateway.upstream(B).close()

    def test_requests_that_outlast_the_drain_time_fail_or_go_elsewhere(self, make):
        gateway = make(instance_drain_seconds=0.2)
        calls = [gateway.start(), gateway.start()]
        gateway.router.watch()
        gateway.router.configure(parse_instances([B]))
        wait_until(lambda: "close" in gateway.tritons[A].log)
        assert [responses(call) for call in calls] == [["ok"], ["ok"]]
        assert gateway.count() == {A: 1, B: 2}
        gateway.upstream(B).close()

    def test_triton_that_comes_back_before_it_is_closed_goes_on(self, make):
        gateway = make(instance_drain_seconds=60.0)
        calls = [gateway.start(), gateway.start()]
        first = gateway.upstream(A)
        gateway.router.watch()
        gateway.router.configure(parse_instances([B]))
        gateway.router.configure(parse_instances([A, B]))
        assert gateway.upstream(A) is first
        assert {gateway.ask() for _ in range(8)} == {A, B}
        assert [responses(call) for call in calls] == [["ok"], ["ok"]]
        for url in (A, B):
            gateway.upstream(url).close()

    def test_one_model_of_a_triton_can_be_removed(self, make):
        gateway = make(f"tiny-chat@{A}", f"tiny-embedding@{A}", B)
        gateway.router.configure(parse_instances([f"tiny-embedding@{A}", B]))
        assert {gateway.ask() for _ in range(4)} == {B}
        assert [each.id for each in gateway.upstream(A).instances.values()] == [f"tiny-embedding@{A}"]

    def test_weight_changes_at_once(self, make):
        gateway = make()
        gateway.router.configure(parse_instances([{"base_url": A, "weight": 3.0}, {"base_url": B, "enabled": False}]))
        assert gateway.instance(A).weight == 3.0
        assert {gateway.ask() for _ in range(4)} == {A}


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestReload:
    def test_one_instance_after_another(self, make):
        gateway = make()
        order = []
        for url, triton in gateway.tritons.items():
            triton.unload = lambda model, timeout, url=url: order.append((url, {gateway.ask() for _ in range(4)}))
        assert Reloader(gateway.settings, gateway.registry).reload("tiny-chat") == [f"tiny-chat@{A}", f"tiny-chat@{B}"]
        assert order == [(A, {B}), (B, {A})]
        assert [triton.log for triton in gateway.tritons.values()] == [["load tiny-chat"]] * 2

    def test_requests_in_progress_finish_first(self, make):
        gateway = make(instance_drain_seconds=5.0)
        calls = [gateway.start(), gateway.start()]
        thread = threading.Thread(target=Reloader(gateway.settings, gateway.registry).reload, args=("tiny-chat",))
        thread.start()
        time.sleep(0.3)
        assert gateway.tritons[A].log == []
        assert [responses(call) for call in calls] == [["ok"], ["ok"]]
        thread.join(5)
        assert gateway.tritons[A].log == ["unload tiny-chat", "load tiny-chat"]

    def test_requests_wait_for_the_only_instance_until_their_own_deadline(self, make):
        gateway = make(A, recovery_seconds=0)
        gateway.tritons[A].load = lambda model, timeout: time.sleep(0.5)
        thread = threading.Thread(target=Reloader(gateway.settings, gateway.registry).reload, args=("tiny-chat",))
        thread.start()
        time.sleep(0.2)
        assert responses(gateway.start()) == ["ok"]
        thread.join(5)

    def test_stops_at_the_first_instance_that_fails(self, make):
        gateway = make()
        gateway.tritons[A].load = lambda model, timeout: raise_error(APIError("no memory"))
        with pytest.raises(APIError, match="no memory"):
            Reloader(gateway.settings, gateway.registry).reload("tiny-chat")
        assert gateway.tritons[B].log == []
        assert {gateway.ask() for _ in range(4)} >= {B}

    def test_instance_serves_on_if_the_new_files_cannot_be_read(self, make, monkeypatch):
        gateway = make(A)
        monkeypatch.setattr("frontend.triton.reload.refresh_model", lambda *_: raise_error(OSError("no such file")))
        with pytest.raises(OSError, match="no such file"):
            Reloader(gateway.settings, gateway.registry).reload("tiny-chat")
        assert gateway.ask() == A

    def test_unknown_model_and_several_workers_are_errors(self, make):
        gateway = make()
        with pytest.raises(Unavailable):
            Reloader(gateway.settings, gateway.registry).reload("unknown")
        with pytest.raises(Conflict, match="one worker"):
            Reloader(make(workers=2).settings, gateway.registry).reload("tiny-chat")


def raise_error(error):
    raise error


class TestServices:
    @pytest.mark.parametrize("service", ["imgGen", "imgEdit", "tts", "stt", "background", "ocr"])
    def test_each_service_has_a_strategy_of_its_own(self, make, service):
        assert make(load_balance={service: "random"}).router._strategies[service] == "random"

    def test_edits_of_images_are_a_service(self):
        assert service_of("image_generation", {"prompt": "x"}) == "imgGen"
        assert service_of("image_generation", {"prompt": "x", "image": b""}) == "imgEdit"

    def test_address_that_a_client_claims_does_not_count(self, client, triton, monkeypatch):
        addresses = []
        key = Router._key
        monkeypatch.setattr(Router, "_key", lambda *arguments: addresses.append(arguments[2]) or key(*arguments))
        triton.queue_response(last("ok"))
        headers = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.8", "X-Real-IP": "203.0.113.9"}
        assert client.post("/v1/chat/completions", json=chat(), headers=headers).status_code == 200
        assert addresses == ["127.0.0.1"]
