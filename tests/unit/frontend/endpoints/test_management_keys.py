"""/api/auth/api-keys: creating, changing, rotating, importing and deleting keys, and their limits."""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.frontend.endpoints.management_support import bearer, create_key, data_of, embed, error_code

KEYS = "/api/auth/api-keys"


@pytest.fixture
def admin(client):
    return create_key(client, keyId="root", role="admin")[1]


def test_value_is_shown_once(client, admin):
    data = data_of(client.post(KEYS, json={"keyId": "a", "description": "test"}, headers=admin), 201)
    value = data["keyValue"]
    assert value.startswith("tr-")
    assert data["suffix"] == f"tr-…{value[-4:]}"
    for path in (KEYS, f"{KEYS}/a", f"{KEYS}/export", f"{KEYS}/quota/overview"):
        assert value not in client.get(path, headers=admin).get_data(as_text=True)
    assert data_of(client.get(f"{KEYS}/a", headers=admin))["description"] == "test"


def test_list_counts_keys(client, admin, monkeypatch):
    create_key(client, admin, keyId="on", expiresAt="2030-01-01 00:00:00")
    create_key(client, admin, keyId="off", enabled=False)
    create_key(client, admin, keyId="old", expiresAt="2028-01-01 00:00:00")
    monkeypatch.setattr(time, "time", lambda: 1_861_920_000.0)  # 2029
    data = data_of(client.get(KEYS, headers=admin))
    assert [item["keyId"] for item in data["items"]] == ["off", "old", "on", "root"]
    counts = {name: data[name] for name in ("total", "enabledCount", "disabledCount", "expiredCount")}
    assert counts == {"total": 4, "enabledCount": 2, "disabledCount": 1, "expiredCount": 1}


def test_update_changes_only_the_given_fields(client, admin):
    identifier, headers = create_key(client, admin, description="old", rateLimitPerMinute=5, models=["tiny-chat"])
    changes = {"description": "new", "rateLimitPerMinute": None, "models": []}
    data = data_of(client.put(f"{KEYS}/{identifier}", json=changes, headers=admin))
    assert (data["description"], data["rateLimitPerMinute"], data["models"]) == ("new", None, [])
    assert embed(client, headers).status_code == 200


def test_disable_and_enable(client, admin):
    identifier, headers = create_key(client, admin)
    client.patch(f"{KEYS}/{identifier}/disable", headers=admin)
    assert embed(client, headers).status_code == 401
    client.patch(f"{KEYS}/{identifier}/enable", headers=admin)
    assert embed(client, headers).status_code == 200


@pytest.mark.parametrize("how", ["rotate", "reset"])
def test_rotation_without_overlap_ends_the_old_value(client, admin, how):
    identifier, old = create_key(client, admin)
    new = bearer(data_of(client.post(f"{KEYS}/{identifier}/{how}", headers=admin))["keyValue"])
    assert [embed(client, headers).status_code for headers in (old, new)] == [401, 200]


def test_deleted_key_is_gone_and_its_id_can_be_used_again(client, admin):
    _, old = create_key(client, admin, keyId="a")
    assert data_of(client.delete(f"{KEYS}/a", headers=admin)) is None
    assert error_code(client.get(f"{KEYS}/a", headers=admin)) == (404, "NOT_FOUND")
    _, new = create_key(client, admin, keyId="a")
    assert [embed(client, headers).status_code for headers in (old, new)] == [401, 200]


def test_export_and_import(client, make_client, admin):
    create_key(client, admin, keyId="a", permissions=["embedding"], rateLimitPerMinute=9)
    _, kept = create_key(client, admin, keyId="b")
    exported = data_of(client.get(f"{KEYS}/export", headers=admin))
    client.delete(f"{KEYS}/a", headers=admin)
    create_key(client, admin, keyId="extra")
    data = data_of(client.post(f"{KEYS}/import", json=exported | {"mode": "REPLACE"}, headers=admin))
    assert [key["keyId"] for key in data["created"]] == ["a"]
    assert embed(client, bearer(data["created"][0]["keyValue"])).status_code == 200
    assert embed(client, kept).status_code == 200  # its value did not change
    remaining = data_of(client.get(KEYS, headers=admin))["items"]
    assert [key["keyId"] for key in remaining] == ["a", "b", "root"]
    assert remaining[0]["rateLimitPerMinute"] == 9


def test_import_changes_only_the_given_fields(client, admin):
    create_key(client, admin, keyId="a", models=["tiny-chat"], dailyTokenLimit=9, enabled=False)
    body = {"keys": [{"keyId": "a", "description": "new"}, {"keyId": "root"}]}
    data_of(client.post(f"{KEYS}/import", json=body, headers=admin))
    key = data_of(client.get(f"{KEYS}/a", headers=admin))
    assert (key["description"], key["models"], key["dailyTokenLimit"], key["enabled"]) == (
        "new",
        ["tiny-chat"],
        9,
        False,
    )
    assert data_of(client.get(f"{KEYS}/root", headers=admin))["role"] == "admin"


def test_expired_keys_are_imported_as_they_were(client, admin):
    body = {"keys": [{"keyId": "old", "expiresAt": "2020-01-01 00:00:00"}]}
    data = data_of(client.post(f"{KEYS}/import", json=body, headers=admin))
    assert embed(client, bearer(data["created"][0]["keyValue"])).status_code == 401
    assert data_of(client.get(f"{KEYS}/old", headers=admin))["expired"] is True


def test_what_get_returns_can_be_put_and_null_resets_a_field(client, admin):
    identifier, _ = create_key(client, admin, description="x", models=["m"], expiresAt="2030-01-01 00:00:00")
    shown = data_of(client.get(f"{KEYS}/{identifier}", headers=admin))
    assert data_of(client.put(f"{KEYS}/{identifier}", json=shown | {"description": None}, headers=admin)) == shown | {
        "description": ""
    }
    changes = {"models": None, "expiresAt": None, "keyId": identifier}
    data = data_of(client.put(f"{KEYS}/{identifier}", json=changes, headers=admin))
    assert (data["models"], data["expiresAt"]) == ([], None)
    assert error_code(client.put(f"{KEYS}/{identifier}", json={"keyId": "b"}, headers=admin))[0] == 400
    nulls = dict.fromkeys(["description", "permissions", "models", "expiresAt", "dailyTokenLimit"])
    assert client.post(KEYS, json=nulls, headers=admin).status_code == 201


def test_body_of_a_rotation_may_be_chunked(client, admin):
    identifier, old = create_key(client, admin)
    response = client.post(
        f"{KEYS}/{identifier}/rotate",
        input_stream=io.BytesIO(b'{"overlapSeconds": 60}'),
        headers=admin | {"Content-Type": "application/json", "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert data_of(response)["previousValidUntil"]
    assert embed(client, old).status_code == 200


def test_invalid_import_changes_nothing(client, admin):
    body = {"mode": "REPLACE", "keys": [{"keyId": "new"}, {"keyId": "bad", "rateLimitPerMinute": 0}]}
    assert error_code(client.post(f"{KEYS}/import", json=body, headers=admin))[0] == 400
    assert [key["keyId"] for key in data_of(client.get(KEYS, headers=admin))["items"]] == ["root"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"expiresAt": "2020-01-01 00:00:00"}, "expiresAt"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": "9999-12-31T23:59:59-23:59"}, "expiresAt"),
        ({"keyId": ".."}, "keyId"),
        ({"keyId": "tr-x"}, "keyId"),
        ({"allowedIpAddresses": ["10.0.0.1/8"]}, "allowedIpAddresses[0]"),
        ({"allowedIpAddresses": ["host"]}, "allowedIpAddresses[0]"),
        ({"rateLimitPerMinute": 0}, "rateLimitPerMinute"),
        ({"dailyTokenLimit": -1}, "dailyTokenLimit"),
        ({"parallelRequests": 1.5}, "parallelRequests"),
        ({"permissions": ["cooking"]}, "permissions[0]"),
        ({"role": "root"}, "role"),
        ({"keyId": "a b"}, "keyId"),
        ({"keyId": "export"}, "keyId"),
        ({"description": "x" * 501}, "description"),
        ({"quotaAlertThreshold": 2}, "quotaAlertThreshold"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_fields_are_named(client, admin, fields, param):
    response = client.post(KEYS, json=fields, headers=admin)
    assert error_code(response)[0] == 400
    assert response.get_json()["data"] == {"param": param}
    assert param.split("[")[0] in response.get_json()["message"]


def test_invalid_requests(client, admin):
    assert error_code(client.post(KEYS, data="{", headers=admin | {"Content-Type": "application/json"})) == (
        400,
        "VALIDATION_ERROR",
    )
    assert error_code(client.post(KEYS, data="{}", headers=admin))[1] == "INVALID_CONTENT_TYPE"
    assert error_code(client.post(KEYS, json={"keyId": "root"}, headers=admin)) == (409, "DUPLICATE_RESOURCE")
    assert error_code(client.put(f"{KEYS}/none", json={"enabled": True}, headers=admin)) == (404, "NOT_FOUND")
    assert error_code(client.post(f"{KEYS}/none/rotate", headers=admin)) == (404, "NOT_FOUND")
    assert error_code(client.put(f"{KEYS}/root", json={}, headers=admin))[0] == 400
    assert error_code(client.get(f"{KEYS}/root/quota/x", headers=admin)) == (404, "NOT_FOUND")
    assert error_code(client.put(KEYS, json={}, headers=admin)) == (405, "METHOD_NOT_ALLOWED")
    big = {"description": "x" * 6_000_000}
    assert error_code(client.post(KEYS, json=big, headers=admin))[0] == 413


class TestLimits:
    def test_requests_per_minute(self, client, admin):
        _, headers = create_key(client, admin, rateLimitPerMinute=2)
        first, second, third = (embed(client, headers) for _ in range(3))
        assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == (
            "2",
            "1",
        )
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        assert third.status_code == 429
        assert third.get_json()["error"]["type"] == "rate_limit_exceeded"
        assert third.headers["Retry-After"] == "30"
        assert third.headers["x-ratelimit-remaining-requests"] == "0"

    def test_tokens_per_day_are_charged_at_the_end(self, client, admin):
        identifier, headers = create_key(client, admin, dailyTokenLimit=5)
        for _ in range(3):  # each costs 2
            embed(client, headers).close()
        assert embed(client, headers).status_code == 429
        quota = data_of(client.get(f"{KEYS}/{identifier}/quota", headers=admin))
        assert quota["limits"] == {"tokensPerDay": {"limit": 5, "used": 6, "remaining": -1}}
        assert [each["keyId"] for each in data_of(client.get(f"{KEYS}/quota/alerts", headers=admin))] == [identifier]
        assert data_of(client.post(f"{KEYS}/{identifier}/quota/reset", headers=admin)) is None
        assert embed(client, headers).status_code == 200

    def test_parallel_requests(self, client, admin, triton):
        _, headers = create_key(client, admin, parallelRequests=1)
        body = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        triton.queue_response({"text_output": "a"}, {"text_output": "", "finish_reason": "stop"})
        stream = client.post("/v1/chat/completions", json=body, headers=headers)
        with ThreadPoolExecutor(1) as pool:  # Flask shares the context of requests in one thread

            def status():
                return pool.submit(lambda: embed(client.application.test_client(), headers).status_code).result()

            assert status() == 429
            stream.close()
            assert status() == 200

    def test_rejected_requests_cost_nothing(self, client, admin):
        _, headers = create_key(client, admin, rateLimitPerMinute=2)
        body = {"model": "tiny-embedding"}  # no input
        for _ in range(5):
            assert client.post("/v1/embeddings", json=body, headers=headers).status_code == 400
        body = {"model": "unknown", "input": "x"}
        for _ in range(5):
            assert client.post("/v1/embeddings", json=body, headers=headers).status_code == 404
        assert [embed(client, headers).status_code for _ in range(3)] == [200, 200, 429]

    def test_several_processes_need_redis(self, make_client):
        client = make_client(workers=2)
        response = client.post(KEYS, json={"rateLimitPerMinute": 2})
        assert error_code(response) == (409, "REDIS_REQUIRED")
        assert "--redis-url" in response.get_json()["message"]
        identifier, _ = create_key(client)
        assert error_code(client.put(f"{KEYS}/{identifier}", json={"parallelRequests": 2}))[0] == 409
        limits = {"rateLimit": {"requestsPerMinute": 2}}
        assert error_code(client.put("/api/config/rate-limits", json=limits))[0] == 409
        assert data_of(client.get("/api/config/version/current")) == 0
