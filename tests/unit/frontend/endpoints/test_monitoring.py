"""/metrics and /actuator: metrics, health and information about the server."""

import dataclasses
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frontend import metrics

PRIVATE = ["/actuator", "/actuator/info", "/actuator/metrics", "/actuator/metrics/trident.tokens.total"]
OPEN = ["/metrics", "/actuator/prometheus", "/actuator/health", "/actuator/health/liveness", "/actuator/health/ping"]


def instance(**fields):
    values = {"id": "m@h", "service": "chat", "model": "m", "is_up": True, "breaker_state": "closed", "active": 0}
    return SimpleNamespace(**values | {"weight": 1.0} | fields)


class FakeRouter:
    def __init__(self):
        self.views = [instance(), instance(id="n@h")]
        self.texts = {"h:8002": "nv_cpu_utilization 0.5\n"}

    def instances(self):
        return self.views

    def triton_metrics(self):
        return self.texts


@pytest.fixture
def router():
    return FakeRouter()


@pytest.fixture
def readiness():
    return {"is_ready": True}


@pytest.fixture
def client(make_client, router, readiness):
    client = make_client(allow_origins=("*",))
    extensions = client.application.extensions
    extensions["trident"] = dataclasses.replace(
        extensions["trident"], router=router, is_ready=lambda: readiness["is_ready"]
    )
    return client


@pytest.fixture(autouse=True)
def _recorded_metrics():
    metrics.reset()
    metrics.record_request("chat", "org/a", 200, 0.3, 100, 2000)
    metrics.record_request("chat", "org/b", 500, 0.5, 100, 2000)
    metrics.record_tokens("org/a", "input", 5)
    metrics.record_tokens("org/a", "output", 7)
    yield
    metrics.reset()


@pytest.mark.parametrize("path", ["/metrics", "/actuator/prometheus"])
def test_metrics_have_prometheus_format(client, path):
    response = client.get(path)
    assert (response.status_code, response.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = response.get_data(as_text=True)
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"trident_requests", "process_cpu_seconds", "nv_cpu_utilization"} <= names
    assert 'nv_cpu_utilization{instance="h:8002"} 0.5\n' in text


@pytest.mark.parametrize("path", ["/metrics", "/actuator/prometheus"])
def test_metrics_can_have_jairouters_names(client, path):
    text = client.get(path, query_string={"names": "jairouter"}).get_data(as_text=True)
    assert 'jairouter_requests_total{method="POST",service="chat",status="200"} 1.0\n' in text
    assert "trident_" not in text


@pytest.mark.parametrize("names", ["", "micrometer", "JAiRouter"])
def test_other_names_are_rejected(client, names):
    response = client.get("/metrics", query_string={"names": names})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "names")


def test_a_triton_that_does_not_respond_is_left_out(client, router):
    router.texts = {}
    response = client.get("/metrics")
    assert response.status_code == 200
    assert "nv_" not in response.get_data(as_text=True)


def test_links_have_absolute_urls(client):
    links = client.get("/actuator").get_json()["_links"]
    assert links["self"] == {"href": "http://localhost/actuator", "templated": False}
    assert links["metrics-requiredMetricName"]["templated"]
    for link in links.values():
        if not link["templated"]:
            assert client.get(link["href"]).status_code == 200


def test_health_lists_its_components(client):
    response = client.get("/actuator/health")
    body = response.get_json()
    assert (response.status_code, body["status"]) == (200, "UP")
    assert body["components"]["ping"] == {"status": "UP"}
    assert body["components"]["diskSpace"]["status"] == "UP"
    assert body["components"]["diskSpace"]["details"]["free"] > 0
    details = {"activeInstances": 2, "totalInstances": 2, "circuitBreakerStatus": "CLOSED"}
    assert body["components"]["modelRouter"] == {"status": "UP", "details": details}
    assert client.get("/actuator/health/modelRouter").get_json() == body["components"]["modelRouter"]


def test_health_is_up_while_one_instance_is_up(client, router):
    router.views = [instance(is_up=False, breaker_state="half_open"), instance(), instance(breaker_state="open")]
    response = client.get("/actuator/health/modelRouter")
    details = {"activeInstances": 2, "totalInstances": 3, "circuitBreakerStatus": "OPEN"}
    assert (response.status_code, response.get_json()) == (200, {"status": "UP", "details": details})


@pytest.mark.parametrize("views", [[], [instance(is_up=False)]])
def test_health_is_down_if_no_instance_is_up(client, router, views):
    router.views = views
    for path in ("/actuator/health", "/actuator/health/modelRouter"):
        response = client.get(path)
        assert (response.status_code, response.get_json()["status"]) == (503, "DOWN")
    assert client.get("/actuator/health/ping").status_code == 200


@pytest.mark.parametrize("name", ["db", "liveness2"])
def test_unknown_health_components_return_404(client, name):
    response = client.get(f"/actuator/health/{name}")
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "not_found")


def test_readiness_ends_before_liveness(client, router, readiness):
    router.views = []
    assert client.get("/actuator/health/readiness").get_json() == {"status": "UP"}
    readiness["is_ready"] = False
    response = client.get("/actuator/health/readiness")
    assert (response.status_code, response.get_json()) == (503, {"status": "OUT_OF_SERVICE"})
    response = client.get("/actuator/health/liveness")
    assert (response.status_code, response.get_json()) == (200, {"status": "UP"})


def test_info_names_the_version(client):
    body = client.get("/actuator/info").get_json()
    assert set(body["app"]) == {"name", "version"}
    assert body["build"]["version"] == body["app"]["version"]


def test_metrics_are_listed_with_dots(client):
    names = client.get("/actuator/metrics").get_json()["names"]
    assert names == sorted(names)
    assert {"trident.requests.total", "trident.request.seconds", "process.resident.memory.bytes"} <= set(names)
    for name in names:
        assert client.get(f"/actuator/metrics/{name}").status_code == 200


def test_a_counter_is_summed_over_its_series(client):
    assert client.get("/actuator/metrics/trident.tokens.total").get_json() == {
        "name": "trident.tokens.total",
        "description": "Input and output tokens",
        "baseUnit": None,
        "measurements": [{"statistic": "COUNT", "value": 12}],
        "availableTags": [
            {"tag": "direction", "values": ["input", "output"]},
            {"tag": "model", "values": ["org/a"]},
        ],
    }


def test_a_histogram_has_a_count_and_a_total_time(client):
    body = client.get("/actuator/metrics/trident.request.seconds").get_json()
    measurements = {entry["statistic"]: entry["value"] for entry in body["measurements"]}
    assert measurements == {"COUNT": 2, "TOTAL_TIME": pytest.approx(0.8)}
    assert body["baseUnit"] == "seconds"
    assert [entry["tag"] for entry in body["availableTags"]] == ["model", "service"]


def test_tags_select_series(client):
    path = "/actuator/metrics/trident.requests.total"
    body = client.get(path, query_string={"tag": ["service:chat", "status:500"]}).get_json()
    assert body["measurements"] == [{"statistic": "COUNT", "value": 1}]
    assert body["availableTags"] == [{"tag": "model", "values": ["org/b"]}]
    assert client.get(path, query_string={"tag": "status:404"}).status_code == 404
    for tag in ("status", ":500"):
        response = client.get(path, query_string={"tag": tag})
        assert (response.status_code, response.get_json()["error"]["param"]) == (400, "tag")


@pytest.mark.parametrize("name", ["trident.nothing", "trident_requests_total", "python.info"])
def test_unknown_metrics_return_404(client, name):
    assert client.get(f"/actuator/metrics/{name}").status_code == 404


@pytest.mark.parametrize("name", ["env", "configprops", "loggers", "beans", "heapdump"])
def test_endpoints_that_reveal_the_configuration_do_not_exist(client, name):
    assert client.get(f"/actuator/{name}").status_code == 404


@pytest.mark.parametrize("path", PRIVATE)
def test_private_endpoints_are_only_for_programs_on_this_machine(client, path):
    assert client.get(path).status_code == 200
    for request in (
        {"environ_base": {"REMOTE_ADDR": "10.1.2.3"}},
        {"headers": {"X-Forwarded-For": "10.1.2.3"}},
        {"headers": {"Origin": "http://evil.example"}},
    ):
        response = client.get(path, **request)
        assert (response.status_code, response.get_json()["error"]["code"]) == (403, "management_closed")


@pytest.mark.parametrize("path", OPEN)
def test_open_endpoints_are_for_all_clients(client, path):
    assert client.get(path, environ_base={"REMOTE_ADDR": "10.1.2.3"}).status_code == 200


@pytest.mark.parametrize("path", [*PRIVATE, *OPEN])
def test_pages_of_other_origins_cannot_read_the_responses(client, path):
    response = client.get(path, headers={"Origin": "http://evil.example"})
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", [*PRIVATE, *OPEN])
def test_the_endpoints_have_no_version_prefix(client, path):
    assert client.get(f"/v1{path}").status_code == 404
