"""Models, health, shutdown, request IDs, the access log, the root page and the selection of models by name."""

import json
import logging

import pytest

from frontend.errors import Unavailable
from frontend.triton.client import ModelState
from tests.unit.conftest import chat, last


def test_models_endpoint_lists_the_models_that_are_ready_in_triton(client):
    body = client.get("/v1/models").get_json()
    assert body == client.get("/models").get_json()
    assert body["object"] == "list"
    tasks = ("background_removal", "chat", "embedding", "image_generation", "ocr", "rerank", "speech", "transcription")
    assert [model["id"] for model in body["data"]] == [f"org/tiny-{task}" for task in tasks]
    assert body["data"][1] == {
        "id": "org/tiny-chat",
        "object": "model",
        "created": 1700000000,
        "owned_by": "org",
        "task": "chat",
        "capabilities": ["tools", "structured_output"],
        "state": "READY",
    }


@pytest.mark.parametrize("name", ["org/tiny-chat", "tiny-chat", "gpt-4o"])
def test_a_model_is_found_by_id_name_or_alias(client, name):
    assert client.get(f"/v1/models/{name}").get_json()["id"] == "org/tiny-chat"


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_models_endpoint_returns_503_if_no_model_is_loaded(client, triton, path):
    triton.states = []
    response = client.get(path)
    assert (response.status_code, response.get_json()) == (503, {"error": "model not initialized"})


def test_health_returns_200_if_all_models_respond(client, triton):
    response = client.get("/health")
    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_health_returns_503_if_no_model_is_loaded(client, triton):
    triton.states = []
    response = client.get("/health")
    assert response.status_code == 503
    assert response.get_json() == {"status": "unhealthy", "error": "model not initialized"}


def test_health_returns_503_if_a_model_does_not_respond(client, triton):
    triton.dead = {"tiny-embedding"}
    response = client.get("/health")
    assert response.status_code == 503
    assert response.get_json() == {"status": "unhealthy", "error": "not responding: tiny-embedding"}


def test_a_busy_model_is_healthy_after_a_recent_response(client, triton):
    """A health probe of a busy model may time out. A recent response to a request then shows that the model works."""
    triton.busy = {"tiny-embedding"}
    assert client.get("/health").status_code == 503
    assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
    assert client.get("/health").status_code == 200


def test_health_names_a_configured_model_that_is_not_loaded(make_client):
    response = make_client(models="tiny-chat,absent").get("/health")
    assert response.get_json()["error"] == "not responding: absent"


def test_shutdown_from_loopback_is_allowed(client, shutdowns, capsys):
    response = client.post("/shutdown")
    assert (response.status_code, response.get_json()) == (200, {"message": "Shutting down..."})
    response.close()
    assert shutdowns == ["now"]
    assert "[SHUTDOWN] Shutdown requested (remote_allowed: false)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("10.1.2.3", {}),
        ("fe80::1", {}),
        ("127.0.0.1", {"X-Forwarded-For": "10.1.2.3"}),
        ("127.0.0.1", {"Sec-Fetch-Site": "cross-site"}),
    ],
)
def test_a_remote_proxied_or_cross_site_shutdown_request_is_forbidden(client, shutdowns, address, headers):
    response = client.post("/shutdown", headers=headers, environ_base={"REMOTE_ADDR": address})
    response.close()
    assert response.status_code == 403
    assert response.get_json() == {
        "error": "Remote shutdown not allowed. Use --allow-remote-shutdown flag to enable (not recommended)."
    }
    assert not shutdowns


def test_remote_shutdown_can_be_allowed(make_client, shutdowns, capsys):
    client = make_client(allow_remote_shutdown=True)
    client.post("/shutdown", environ_base={"REMOTE_ADDR": "10.1.2.3"}).close()
    assert shutdowns == ["now"]
    assert "(remote_allowed: true)" in capsys.readouterr().err


def test_shutdown_from_ipv6_and_ipv4_mapped_loopback_is_allowed(client, shutdowns):
    for address in ("::1", "::ffff:127.0.0.1"):
        client.post("/shutdown", environ_base={"REMOTE_ADDR": address}).close()
    assert len(shutdowns) == 2


def test_the_clients_request_id_is_returned(client):
    assert client.get("/health", headers={"X-Request-Id": "mine-7"}).headers["X-Request-Id"] == "mine-7"


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "é"])
def test_an_invalid_request_id_is_replaced(client, given):
    received = client.get("/health", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert received not in ("", given)


def test_the_access_log_has_one_line_per_request(client, triton, caplog):
    triton.queue_response(last(prompt=4, completion=6))
    with caplog.at_level(logging.INFO, logger="access"):
        with client.post("/v1/chat/completions", json=chat(stream=True), headers={"X-Request-Id": "r-1"}) as response:
            response.get_data()
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "access"]
    assert line["request_id"] == "r-1"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["model"], line["prompt_tokens"], line["completion_tokens"]) == ("org/tiny-chat", 4, 6)
    assert line["ms"] >= 0


def test_the_text_access_log_escapes_control_characters(make_client, caplog):
    client = make_client(log_format="text")
    with caplog.at_level(logging.INFO, logger="access"):
        client.get("/v1/no%0Asuch", headers={"X-Request-Id": "r-2"}).close()
    (line,) = [record.message for record in caplog.records if record.name == "access"]
    assert line.startswith(r"127.0.0.1 GET /v1/no\nsuch 404 request_id=r-2 ms=")


def test_the_root_page_lists_endpoint_urls(make_client):
    response = make_client(host="0.0.0.0").get("/", headers={"Host": "example.org:8080"})
    assert (response.status_code, response.content_type) == (200, "text/plain; charset=utf-8")
    assert "http://example.org:8080/v1/models" in response.get_data(as_text=True)


class TestRegistry:
    """Selection of a model by name, alias or task, and the refresh of the list of models."""

    def test_an_alias_of_a_task_refers_to_the_first_configured_model(self, make_client, triton):
        triton.states = [ModelState("a-chat", "READY"), ModelState("b-chat", "READY")]
        triton.queue_response(last())
        make_client(models="b-chat a-chat").post("/v1/chat/completions", json=chat(model="gpt-3.5-turbo"))
        assert triton.requests[0]["model"] == "b-chat"

    def test_aliases_can_be_added_and_removed(self, make_client, triton):
        triton.queue_response(last())
        client = make_client(aliases={"mine": "tiny-chat", "gpt-4": ""})
        assert client.post("/v1/chat/completions", json=chat(model="mine")).status_code == 200
        assert client.post("/v1/chat/completions", json=chat(model="gpt-4")).status_code == 404

    def test_unknown_model_names_can_fall_back_to_the_default_model(self, make_client, triton):
        triton.queue_response(last())
        response = make_client(unknown_model="default").post("/v1/chat/completions", json=chat(model="Qwen/Qwen3-0.6B"))
        assert response.get_json()["model"] == "org/tiny-chat"

    def test_a_model_of_another_task_is_rejected(self, client):
        response = client.post("/v1/chat/completions", json=chat(model="tiny-embedding"))
        assert (response.status_code, response.get_json()["error"]["param"]) == (400, "model")

    def test_a_request_for_a_configured_model_that_is_not_loaded_returns_503_not_404(self, make_client):
        response = make_client(models="tiny-chat absent").post("/v1/chat/completions", json=chat(model="absent"))
        assert response.status_code == 503

    def test_the_list_of_models_is_not_read_from_triton_for_every_request(self, client, triton):
        for _ in range(5):
            client.get("/v1/models")
        assert triton.index_reads == 1

    def test_models_have_the_state_unavailable_while_triton_is_down(self, client, triton, monkeypatch):
        monkeypatch.setattr("frontend.triton.upstream._INDEX_SECONDS", 0)
        assert client.get("/v1/models").get_json()["data"][0]["state"] == "READY"
        triton.down = Unavailable("gone")
        assert client.get("/v1/models").get_json()["data"][0]["state"] == "UNAVAILABLE"
        triton.down = None
        assert client.get("/v1/models").get_json()["data"][0]["state"] == "READY"


def test_adapters_are_models_of_their_own(client, triton, configure):
    configure(adapters='["pirate", "Poet"]')
    models = client.get("/v1/models").get_json()["data"]
    assert [model["id"] for model in models if model["task"] == "chat"] == [
        "org/tiny-chat",
        "org/tiny-chat:pirate",
        "org/tiny-chat:Poet",
    ]
    fingerprints = set()
    for name, adapter in (
        ("tiny-chat", None),
        ("gpt-4o", None),
        ("org/tiny-chat:pirate", "pirate"),
        ("tiny-chat:poet", "Poet"),
    ):
        triton.queue_response(last("Ahoy"))
        body = client.post("/v1/chat/completions", json=chat(model=name)).get_json()
        assert body["model"] == (f"org/tiny-chat:{adapter}" if adapter else "org/tiny-chat")
        fingerprints.add(body["system_fingerprint"])
        request = triton.requests[-1]
        assert request["model"] == "tiny-chat"
        assert json.loads(request["inputs"]["sampling_parameters"]).get("adapter") == adapter
    assert len(fingerprints) == 3
    assert client.post("/v1/chat/completions", json=chat(model="tiny-chat:none")).status_code == 404
    assert client.get("/health").status_code == 200


def test_an_adapter_of_a_model_that_is_not_loaded_is_unavailable(make_client, triton):
    client = make_client(models="tiny-chat,off")
    assert client.post("/v1/chat/completions", json=chat(model="off:pirate")).status_code == 503
