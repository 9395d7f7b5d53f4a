"""The metrics in Prometheus' text format: those of the frontend, of Triton servers, and under JAiRouter's names."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frontend import metrics
from frontend.gateway import exposition, triton_metrics
from tests.support.promtool import check_metrics

# From Triton 2.51, shortened. The names of counters there lack `_total`.
TRITON = r"""# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="chat",version="1"} 3
nv_inference_request_success{model="a\"}b\\",version="1"} 1
# HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
# HELP nv_inference_first_response_histogram_ms Duration from request to first response in milliseconds
# TYPE nv_inference_first_response_histogram_ms histogram
nv_inference_first_response_histogram_ms_count{model="chat",version="1"} 2
nv_inference_first_response_histogram_ms_sum{model="chat",version="1"} 150
nv_inference_first_response_histogram_ms_bucket{model="chat",version="1",le="100"} 1
nv_inference_first_response_histogram_ms_bucket{model="chat",version="1",le="+Inf"} 2
# HELP trident_generation_running Requests in the last step
# TYPE trident_generation_running gauge
trident_generation_running{model="chat"} 2.5e+00
"""


@pytest.fixture(autouse=True)
def _recorded_metrics():
    metrics.reset()
    for model, status in (("org/a", 200), ("org/b", 200), ("org/a", 503)):
        metrics.record_request("chat", model, status, 0.3, 100, 2000)
    metrics.record_request("other", "", 200, 0.1, 0, 10)
    metrics.record_first_token("chat", "org/a", 0.1)
    metrics.record_token_time("chat", "org/a", 0.01)
    metrics.record_tokens("org/a", "input", 5)
    metrics.add_active_request("chat")
    metrics.record_retry("unavailable")
    for outcome in ("ok", "failed", "abandoned", "overloaded"):
        metrics.record_instance_request("chat", "a@h", outcome)
    metrics.set_instance_up("chat", "a@h", True)
    metrics.set_instance_active("chat", "a@h", 1)
    metrics.set_instance_weight("chat", "a@h", 1)
    metrics.record_choice("chat", "random", "a@h", "load")
    metrics.record_choice("chat", "random", "a@h", "retry")
    metrics.set_breaker_state("a@h", "half_open")
    for state in ("open", "half_open"):
        metrics.record_breaker_transition("a@h", state)
    yield
    metrics.reset()


def parse(text):
    """Return the samples of an exposition by name and labels. Check that the lines of each family form one group."""
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_exposition_has_the_metrics_of_the_frontend_and_its_processes():
    text = exposition.render({}).decode()
    samples = parse(text)
    check_metrics(text)
    labels = (("model", "org/a"), ("service", "chat"), ("status", "200"))
    assert samples["trident_requests_total", labels] == 1
    assert samples["process_resident_memory_bytes", ()] > 1e6
    assert samples["process_cpu_seconds_total", ()] > 0
    assert samples["process_open_fds", ()] > 2
    assert samples["process_start_time_seconds", ()] > 1.7e9
    assert not any(name.endswith("_created") for name, _ in samples)


def test_gauges_of_removed_instances_are_not_exposed():
    metrics.remove_instance("chat", "a@h")
    samples = parse(exposition.render({}).decode())
    assert not any(name in ("trident_instance_up", "trident_instance_weight") for name, _ in samples)
    metrics.set_instance_up("chat", "a@h", True)
    assert parse(exposition.render({}).decode())["trident_instance_up", (("instance", "a@h"), ("service", "chat"))] == 1


def test_the_metrics_of_all_tritons_are_merged():
    text = exposition.render({"10.0.0.1:8002": TRITON, "10.0.0.2:8002": TRITON}).decode()
    samples = parse(text)
    check_metrics(text)
    for instance in ("10.0.0.1:8002", "10.0.0.2:8002"):
        labels = (("instance", instance), ("model", 'a"}b\\'), ("version", "1"))
        assert samples["nv_inference_request_success_total", labels] == 1  # the parser adds `_total`
        assert samples["nv_cpu_utilization", (("instance", instance),)] == 0.25
        assert samples["trident_generation_running", (("instance", instance), ("model", "chat"))] == 2.5
        labels = (("instance", instance), ("le", "+Inf"), ("model", "chat"), ("version", "1"))
        assert samples["nv_inference_first_response_histogram_ms_bucket", labels] == 2
    for keyword in ("HELP", "TYPE"):
        assert text.count(f"# {keyword} nv_cpu_utilization ") == 1


def test_families_that_only_one_triton_has_are_kept():
    other = "# TYPE nv_gpu_utilization gauge\nnv_gpu_utilization 1\nnv_cpu_utilization 0.5\n"
    samples = parse(triton_metrics.merge({"a:1": TRITON, "b:1": other}))
    assert samples["nv_gpu_utilization", (("instance", "b:1"),)] == 1
    assert samples["nv_cpu_utilization", (("instance", "b:1"),)] == 0.5


@pytest.mark.parametrize(
    ("line", "merged"),
    [
        ("m 1", 'm{instance="h:1"} 1'),
        ("m{} 1", 'm{instance="h:1"} 1'),
        ('m{a="b",} NaN', 'm{instance="h:1",a="b",} NaN'),
        ('m{a="b", c="d"} +Inf 1700000000', 'm{instance="h:1",a="b", c="d"} +Inf 1700000000'),
        ('m{instance="x",a=",instance="} 1', 'm{instance="h:1",exported_instance="x",a=",instance="} 1'),
        ('m{my_instance="x"} 1', 'm{instance="h:1",my_instance="x"} 1'),
        ('m{a="b\\\\"} 1\r', 'm{instance="h:1",a="b\\\\"} 1'),
    ],
)
def test_each_line_gets_the_label_of_its_triton(line, merged):
    assert triton_metrics.merge({"h:1": line}).split("\n") == [merged, ""]


@pytest.mark.parametrize(
    "line", ["<html>", "Not found", 'm{a="b} 1', 'm{a="b"}', 'm{a="b"} x', "m", "m 1 2 3", "# EOF", "m{a=b} 1", "m\n1"]
)
def test_invalid_lines_are_left_out(line):
    assert triton_metrics.merge({"h:1": f"{line}\nok 1\n"}) == 'ok{instance="h:1"} 1\n'


def test_the_address_of_a_triton_is_escaped():
    assert parse(triton_metrics.merge({'a"\\\n': "m 1"})) == {("m", (("instance", 'a"\\\n'),)): 1}


def test_a_triton_cannot_replace_the_frontends_metrics():
    text = exposition.render({"h:1": '# TYPE trident_requests_total counter\ntrident_requests_total{service="x"} 9\n'})
    assert b"h:1" not in text
    parse(text.decode())


def test_the_metrics_have_jairouters_names():
    text = exposition.render_jairouter().decode()
    samples = parse(text)
    check_metrics(text)
    service = ("service", "chat")
    post = ("method", "POST")
    assert samples["jairouter_requests_total", (post, service, ("status", "200"))] == 2
    assert samples["jairouter_requests_total", (post, service, ("status", "503"))] == 1
    assert samples["jairouter_request_duration_seconds_count", (post, service)] == 3
    assert samples["jairouter_request_duration_seconds_bucket", (("le", "0.25"), post, service)] == 0
    assert samples["jairouter_request_duration_seconds_bucket", (("le", "0.5"), post, service)] == 3
    assert samples["jairouter_request_size_bytes_sum", (service,)] == 300
    assert samples["jairouter_response_size_bytes_count", (service,)] == 3
    backend = (("adapter", "triton"), ("instance", "a@h"))
    assert samples["jairouter_backend_calls_total", (*backend, ("status", "success"))] == 1
    assert samples["jairouter_backend_calls_total", (*backend, ("status", "failure"))] == 2
    assert samples["jairouter_backend_health", backend] == 1
    choice = (("instance", "a@h"), service, ("strategy", "random"))
    assert samples["jairouter_loadbalancer_selections_total", choice] == 2
    breaker = ("service", "a@h")
    assert samples["jairouter_circuit_breaker_state", (breaker,)] == 2
    assert samples["jairouter_circuit_breaker_events_total", (("event", "state_change"), breaker)] == 2
    assert not any(("service", "other") in labels for name, labels in samples if "requests_total" in name)
    assert all(name.startswith("jairouter_") for name, _ in samples)
