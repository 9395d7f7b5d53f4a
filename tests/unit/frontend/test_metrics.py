"""The metrics: values, bounded labels, and processes that share a metrics folder."""

import json
import subprocess
import sys

import pytest

from frontend import metrics
from tests.unit.conftest import metric_value as value

pytestmark = pytest.mark.usefixtures("empty_metrics")


def test_a_finished_request_is_recorded():
    metrics.record_request("chat", "org/m", 200, 0.3, 100, 2000)
    metrics.record_request("chat", "org/m", 503, 0.02, 50, 80)
    assert value("trident_requests_total", service="chat", model="org/m", status="200") == 1
    assert value("trident_requests_total", service="chat", model="org/m", status="503") == 1
    assert value("trident_request_seconds_sum", service="chat", model="org/m") == pytest.approx(0.32)
    assert value("trident_request_seconds_bucket", service="chat", model="org/m", le="0.25") == 1
    assert value("trident_request_seconds_bucket", service="chat", model="org/m", le="600.0") == 2
    assert value("trident_request_bytes_total", service="chat") == 150
    assert value("trident_response_bytes_total", service="chat") == 2080


def test_requests_in_progress_are_counted():
    for _ in range(3):
        metrics.add_active_request("tts")
    metrics.remove_active_request("tts")
    assert value("trident_requests_active", service="tts") == 2


def test_tokens_and_their_times_are_recorded():
    metrics.record_tokens("m", "input", 7)
    metrics.record_tokens("m", "output", 3)
    metrics.record_first_token("chat", "m", 0.2)
    metrics.record_token_time("chat", "m", 0.02)
    assert value("trident_tokens_total", model="m", direction="input") == 7
    assert value("trident_tokens_total", model="m", direction="output") == 3
    assert value("trident_time_to_first_token_seconds_count", service="chat", model="m") == 1
    assert value("trident_time_per_output_token_seconds_bucket", service="chat", model="m", le="0.02") == 1


def test_requests_to_instances_are_recorded():
    metrics.record_instance_request("chat", "m@h", "overloaded")
    metrics.record_choice("chat", "round-robin", "m@h", "load")
    metrics.record_retry("overloaded")
    metrics.set_instance_active("chat", "m@h", 4)
    metrics.set_instance_up("chat", "m@h", True)
    metrics.set_instance_weight("chat", "m@h", 2.5)
    assert value("trident_instance_requests_total", service="chat", instance="m@h", outcome="overloaded") == 1
    choice = {"service": "chat", "strategy": "round-robin", "instance": "m@h", "reason": "load"}
    assert value("trident_balancer_choices_total", **choice) == 1
    assert value("trident_retries_total", reason="overloaded") == 1
    gauges = [value(f"trident_instance_{name}", service="chat", instance="m@h") for name in ("active", "up", "weight")]
    assert gauges == [4, 1, 2.5]


def test_states_of_circuit_breakers_are_numbers():
    for state, number in (("open", 1), ("half_open", 2), ("closed", 0)):
        metrics.set_breaker_state("m@h", state)
        metrics.record_breaker_transition("m@h", state)
        assert value("trident_breaker_state", instance="m@h") == number
        assert value("trident_breaker_transitions_total", instance="m@h", to=state) == 1


def test_names_from_clients_cannot_create_series_without_limit():
    for index in range(100_000):
        metrics.record_tokens(f"model-{index}", "input", 1)
        metrics.record_retry(f"reason-{index}")
    (tokens,) = (family for family in metrics.REGISTRY.collect() if family.name == "trident_tokens")
    assert len(tokens.samples) == 201
    assert value("trident_tokens_total", model="other", direction="input") == 99_800
    assert value("trident_retries_total", reason="other") == 99_970
    for index in range(1000):
        metrics.record_instance_request(f"service-{index}", f"instance-{index}", "ok")
    (requests,) = (family for family in metrics.REGISTRY.collect() if family.name == "trident_instance_requests")
    assert {sample.labels["service"] for sample in requests.samples} == {"other"}
    assert len(requests.samples) == 201


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\ud800"])
def test_a_name_that_is_no_label_becomes_other(name):
    metrics.record_tokens(name, "input", 1)
    assert value("trident_tokens_total", model="other", direction="input") == 1


# Two workers record the same; the first one is killed. Prints the samples before and after that.
_PROCESSES = """
import json, os, signal, sys, time
from pathlib import Path
from frontend import metrics_folder

folder = Path(sys.argv[1])
(folder / "counter_1.db").write_bytes(b"left by an earlier run")
metrics_folder.prepare(folder)

def start_worker(up):
    ready, recorded = os.pipe()
    if pid := os.fork():
        os.read(ready, 1)
        return pid
    from frontend import metrics
    metrics.record_request("chat", "m", 200, 1, 10, 20)
    metrics.add_active_request("chat")
    metrics.set_instance_up("chat", "m@h", up)
    metrics.set_instance_weight("chat", "m@h", 2)
    metrics.set_breaker_state("m@h", "closed" if up else "open")
    if not up:
        metrics.set_instance_up("chat", "removed@h", False)
        metrics.remove_instance("chat", "removed@h")
    os.write(recorded, b".")
    time.sleep(60)

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    metrics_folder.mark_process_dead(pid)

def samples():
    from frontend.gateway.exposition import collect
    found = {}
    for family in collect():
        for sample in family.samples:
            if sample.name.startswith("trident") and "le" not in sample.labels:
                found[sample.name + "/" + sample.labels.get("instance", "")] = sample.value
    return found

first, second = start_worker(False), start_worker(True)
results = [samples()]
kill(first)
results.append(samples())
kill(second)
print(json.dumps(results))
"""


def test_processes_share_their_metrics(tmp_path):
    output = subprocess.run(
        [sys.executable, "-c", _PROCESSES, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    before, after = json.loads(output.stdout)
    for name in ("trident_requests_total", "trident_request_seconds_count", "trident_request_seconds_sum"):
        assert before[f"{name}/"] == after[f"{name}/"] == 2, "counters include processes that have exited"
    assert (before["trident_requests_active/"], after["trident_requests_active/"]) == (2, 1)
    assert (before["trident_instance_up/m@h"], after["trident_instance_up/m@h"]) == (0, 1)
    assert (before["trident_breaker_state/m@h"], after["trident_breaker_state/m@h"]) == (1, 0)
    assert before["trident_instance_weight/m@h"] == 2
    assert "trident_instance_up/removed@h" not in before
    assert before["trident_instance_active/removed@h"] == 0


def test_the_metrics_folder_must_be_prepared_before_the_import_of_prometheus_client(tmp_path):
    from frontend.metrics_folder import prepare

    with pytest.raises(RuntimeError, match="imported before"):
        prepare(tmp_path)
