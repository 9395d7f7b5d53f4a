"""Models, health, shutdown, request ids and the access log."""

import json
import logging

import pytest

from frontend.errors import Unavailable
from frontend.triton.client import ModelState
from tests.unit.conftest import chat, last


def test_models_are_what_triton_has_ready(client):
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
        "capabilities": [],
        "state": "READY",
    }


@pytest.mark.parametrize("name", ["org/tiny-chat", "tiny-chat", "gpt-4o"])
def test_one_model_by_id_name_or_alias(client, name):
    assert client.get(f"/v1/models/{name}").get_json()["id"] == "org/tiny-chat"


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_models_before_there_are_any(client, triton, path):
    triton.states = []
    response = client.get(path)
    assert (response.status_code, response.get_json()) == (503, {"error": "model not initialized"})


def test_health(client, triton):
    response = client.get("/health")
    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_health_without_models(client, triton):
    triton.states = []
    response = client.get("/health")
    assert response.status_code == 503
    assert response.get_json() == {"status": "unhealthy", "error": "model not initialized"}


def test_health_needs_an_answer_of_every_wanted_model(client, triton):
    triton.dead = {"tiny-embedding"}
    response = client.get("/health")
    assert response.status_code == 503
    assert response.get_json() == {"status": "unhealthy", "error": "not answering: tiny-embedding"}


def test_a_busy_model_is_not_a_dead_one(client, triton):
    """A probe of a batched model waits behind the requests; one that has just answered some is fine."""
    triton.busy = {"tiny-embedding"}
    assert client.get("/health").status_code == 503
    assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
    assert client.get("/health").status_code == 200


def test_health_misses_a_wanted_model_that_is_not_loaded(make_client):
    response = make_client(models="tiny-chat,absent").get("/health")
    assert response.get_json()["error"] == "not answering: absent"


def test_shutdown_from_loopback(client, shutdowns, capsys):
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
def test_shutdown_from_elsewhere(client, shutdowns, address, headers):
    response = client.post("/shutdown", headers=headers, environ_base={"REMOTE_ADDR": address})
    response.close()
    assert response.status_code == 403
    assert response.get_json() == {
        "error": "Remote shutdown not allowed. Use --allow-remote-shutdown flag to enable (not recommended)."
    }
    assert not shutdowns


def test_shutdown_from_elsewhere_when_allowed(make_client, shutdowns, capsys):
    client = make_client(allow_remote_shutdown=True)
    client.post("/shutdown", environ_base={"REMOTE_ADDR": "10.1.2.3"}).close()
    assert shutdowns == ["now"]
    assert "(remote_allowed: true)" in capsys.readouterr().err


def test_ipv6_and_mapped_loopback_are_loopback(client, shutdowns):
    for address in ("::1", "::ffff:127.0.0.1"):
        client.post("/shutdown", environ_base={"REMOTE_ADDR": address}).close()
    assert len(shutdowns) == 2


def test_the_callers_request_id_comes_back(client):
    assert client.get("/health", headers={"X-Request-Id": "mine-7"}).headers["X-Request-Id"] == "mine-7"


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "é"])
def test_an_unfit_request_id_is_replaced(client, given):
    received = client.get("/health", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert received not in ("", given)


def test_the_access_log_has_one_line_a_request(client, triton, caplog):
    triton.will_answer(last(prompt=4, completion=6))
    with caplog.at_level(logging.INFO, logger="access"):
        with client.post("/v1/chat/completions", json=chat(stream=True), headers={"X-Request-Id": "r-1"}) as response:
            response.get_data()
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "access"]
    assert line["request_id"] == "r-1"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["model"], line["prompt_tokens"], line["completion_tokens"]) == ("org/tiny-chat", 4, 6)
    assert line["ms"] >= 0


def test_the_access_log_as_text(make_client, caplog):
    client = make_client(log_format="text")
    with caplog.at_level(logging.INFO, logger="access"):
        client.get("/v1/no%0Asuch", headers={"X-Request-Id": "r-2"}).close()
    (line,) = [record.message for record in caplog.records if record.name == "access"]
    assert line.startswith(r"127.0.0.1 GET /v1/no\nsuch 404 request_id=r-2 ms=")


def test_the_root_says_where_things_are(client):
    response = client.get("/", headers={"Host": "example.org:8080"})
    assert (response.status_code, response.content_type) == (200, "text/plain; charset=utf-8")
    assert "http://example.org:8080/v1/models" in response.get_data(as_text=True)


class TestRegistry:
    """Which model a name means."""

    def test_a_task_alias_means_the_first_model_asked_for(self, make_client, triton):
        triton.states = [ModelState("a-chat", "READY"), ModelState("b-chat", "READY")]
        triton.will_answer(last())
        make_client(models="b-chat a-chat").post("/v1/chat/completions", json=chat(model="gpt-3.5-turbo"))
        assert triton.requests[0]["model"] == "b-chat"

    def test_aliases_are_configuration(self, make_client, triton):
        triton.will_answer(last())
        client = make_client(aliases={"mine": "tiny-chat", "gpt-4": ""})
        assert client.post("/v1/chat/completions", json=chat(model="mine")).status_code == 200
        assert client.post("/v1/chat/completions", json=chat(model="gpt-4")).status_code == 404

    def test_unknown_names_get_the_default_where_configured(self, make_client, triton):
        triton.will_answer(last())
        response = make_client(unknown_model="default").post("/v1/chat/completions", json=chat(model="Qwen/Qwen3-0.6B"))
        assert response.get_json()["model"] == "org/tiny-chat"

    def test_a_model_of_another_task_is_refused(self, client):
        response = client.post("/v1/chat/completions", json=chat(model="tiny-embedding"))
        assert (response.status_code, response.get_json()["error"]["param"]) == (400, "model")

    def test_a_wanted_model_that_is_not_loaded_is_503_not_404(self, make_client):
        response = make_client(models="tiny-chat absent").post("/v1/chat/completions", json=chat(model="absent"))
        assert response.status_code == 503

    def test_triton_is_not_asked_for_every_request(self, client, triton):
        for _ in range(5):
            client.get("/v1/models")
        assert triton.index_reads == 1

    def test_while_triton_is_away_models_are_said_to_be(self, client, triton, monkeypatch):
        monkeypatch.setattr("frontend.triton.registry._FRESH_SECONDS", 0)
        assert client.get("/v1/models").get_json()["data"][0]["state"] == "READY"
        triton.down = Unavailable("gone")
        assert client.get("/v1/models").get_json()["data"][0]["state"] == "UNAVAILABLE"
        triton.down = None
        assert client.get("/v1/models").get_json()["data"][0]["state"] == "READY"
