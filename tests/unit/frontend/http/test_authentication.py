"""Who may use which path: API keys, trusted proxies, and management without keys."""

import io
import shutil
import sqlite3
import time
from datetime import UTC, datetime, timedelta

import pytest

from frontend.errors import StoreUnavailable
from frontend.gateway.access import access_of
from frontend.gateway.keys import LOCAL, KeyRing, Pepper
from frontend.gateway.store.database import Store
from tests.unit.frontend.endpoints.management_support import bearer, create_key, data_of, embed

REMOTE = {"environ_base": {"REMOTE_ADDR": "203.0.113.9"}}


@pytest.fixture
def admin(client):
    return create_key(client, keyId="root", role="admin")[1]


@pytest.fixture
def user(client, admin):
    return create_key(client, admin, keyId="user")[1]


def code(response):
    return response.status_code, response.get_json()["error"]["code"]


def test_without_keys_inference_is_open_and_any_key_is_accepted(client):
    assert embed(client, **REMOTE).status_code == 200
    assert embed(client, bearer("sk-anything"), **REMOTE).status_code == 200


@pytest.mark.parametrize("path", ["/api/config/type", "/api/audit", "/actuator", "/v1/organization/usage/completions"])
def test_without_keys_management_is_only_for_programs_on_this_machine(client, path):
    assert client.get(f"{path}?start_time=1").status_code == 200
    assert client.get(path, **REMOTE).status_code == 403
    for headers in (
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert client.get(path, headers=headers).status_code == 403


def test_with_keys_inference_needs_a_user_key(client, user, admin):
    assert embed(client, user).status_code == 200
    assert embed(client, {"X-API-Key": user["Authorization"].removeprefix("Bearer ")}).status_code == 200
    response = embed(client)
    assert code(response) == (401, "missing_api_key")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert code(embed(client, bearer("tr-" + "x" * 43))) == (401, "invalid_api_key")


@pytest.mark.parametrize("role", ["admin", "readonly"])
def test_management_keys_are_rejected_for_inference(client, admin, role):
    _, headers = create_key(client, admin, role=role)
    assert code(embed(client, headers)) == (403, "insufficient_permissions")


def test_management_needs_an_admin_key_as_soon_as_there_is_one(client, user, admin):
    assert client.get("/api/config/type").status_code == 401
    assert client.get("/api/config/type", headers=user).status_code == 403
    assert client.get("/api/config/type", headers=admin, **REMOTE).status_code == 200


def test_management_without_admin_key_stays_open_for_this_machine(client):
    create_key(client, keyId="user")
    assert client.get("/api/config/type").status_code == 200
    assert client.get("/api/config/type", **REMOTE).status_code == 403


def test_read_only_keys_can_read(client, admin):
    _, headers = create_key(client, admin, role="readonly")
    assert client.get("/api/config/type", headers=headers).status_code == 200
    assert client.get("/actuator/info", headers=headers).status_code == 200
    response = client.put("/api/config/aliases", json={}, headers=headers)
    assert (response.status_code, response.get_json()["errorCode"]) == (403, "INSUFFICIENT_PERMISSIONS")


def test_metrics_are_open_until_there_are_keys(client, make_client):
    assert client.get("/metrics", **REMOTE).status_code == 200
    _, admin = create_key(client, role="admin")
    _, user = create_key(client, admin)
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=user).status_code == 403
    assert client.get("/metrics", headers=admin).status_code == 200
    assert make_client(open_metrics=True).get("/metrics").status_code == 200


def test_health_and_images_are_always_open(client, user):
    for path in ("/", "/health", "/v1/health", "/actuator/health/liveness"):
        assert client.get(path).status_code == 200
    assert client.get("/v1/images/files/none.png").status_code == 404
    assert client.get("/nothing").status_code == 404


@pytest.mark.parametrize("reason", ["unknown", "disabled", "expired", "deleted", "address", "rotated"])
def test_all_invalid_keys_get_the_same_response(client, admin, reason, monkeypatch):
    identifier, headers = create_key(client, admin)
    path = f"/api/auth/api-keys/{identifier}"
    if reason == "unknown":
        headers = bearer("tr-" + "A" * 43)
    elif reason == "disabled":
        assert client.patch(f"{path}/disable", headers=admin).status_code == 200
    elif reason == "expired":
        soon = datetime.now(UTC) + timedelta(seconds=60)
        data_of(client.put(path, json={"expiresAt": soon.isoformat()}, headers=admin))
        monkeypatch.setattr(time, "time", lambda: soon.timestamp() + 1)
    elif reason == "deleted":
        assert client.delete(path, headers=admin).status_code == 200
    elif reason == "address":
        data_of(client.put(path, json={"allowedIpAddresses": ["10.0.0.0/8", "2001:db8::/32"]}, headers=admin))
    else:
        assert client.post(f"{path}/rotate", headers=admin).status_code == 200
    response = embed(client, headers)
    assert response.status_code == 401
    assert response.get_json()["error"] == {
        "message": "The API key is not valid",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_key_is_valid_from_its_addresses(client, admin):
    _, headers = create_key(client, admin, allowedIpAddresses=["203.0.113.0/24", "127.0.0.1"])
    assert embed(client, headers).status_code == 200
    assert embed(client, headers, **REMOTE).status_code == 200
    assert embed(client, headers, environ_base={"REMOTE_ADDR": "::ffff:203.0.113.9"}).status_code == 200
    assert embed(client, headers, environ_base={"REMOTE_ADDR": "198.51.100.1"}).status_code == 401


def test_old_key_stays_valid_for_the_overlap(client, admin, monkeypatch):
    identifier, old = create_key(client, admin)
    body = {"overlapSeconds": 60}
    data = data_of(client.post(f"/api/auth/api-keys/{identifier}/rotate", json=body, headers=admin))
    new = bearer(data["keyValue"])
    assert data["previousValidUntil"]
    assert [embed(client, headers).status_code for headers in (old, new)] == [200, 200]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert [embed(client, headers).status_code for headers in (old, new)] == [401, 200]


def test_two_different_keys_are_rejected(client, user, admin):
    key = user["Authorization"].removeprefix("Bearer ")
    assert embed(client, user | {"X-API-Key": key}).status_code == 200
    assert embed(client, user | {"X-API-Key": "tr-" + "x" * 43}).status_code == 401


def test_keys_in_the_url_are_rejected_and_not_logged(client, user, caplog):
    key = user["Authorization"].removeprefix("Bearer ")
    with caplog.at_level("DEBUG"):
        for query in (f"api_key={key}", f"x={key}", "key=sk-other", "access_token=abc"):
            response = client.get(f"/v1/models?{query}", headers=user)
            assert code(response) == (401, "key_in_url")
    assert key not in caplog.text
    assert "sk-other" not in caplog.text


def test_too_many_wrong_keys_from_an_address_are_rejected(client, user):
    wrong = bearer("tr-" + "y" * 43)
    statuses = [embed(client, wrong, **REMOTE).status_code for _ in range(25)]
    assert statuses.count(401) == 20
    assert statuses[-1] == 429
    response = embed(client, wrong, **REMOTE)
    assert response.headers["Retry-After"] == "60"
    # Other addresses, and valid keys from the same address, are not affected.
    assert embed(client, wrong).status_code == 401
    assert embed(client, user, **REMOTE).status_code == 200


class TestTrustedProxies:
    @pytest.fixture
    def client(self, make_client):
        return make_client(trusted_proxies=("10.0.0.0/8", "127.0.0.1"))

    @pytest.mark.parametrize(
        ("peer", "forwarded", "address"),
        [
            ("127.0.0.1", "203.0.113.5", "203.0.113.5"),
            ("127.0.0.1", "1.1.1.1, 203.0.113.5, 10.1.2.3", "203.0.113.5"),  # 1.1.1.1 is the client's invention
            ("198.51.100.7", "203.0.113.5", "198.51.100.7"),  # not a proxy
            ("127.0.0.1", "", "127.0.0.1"),
            ("127.0.0.1", "nonsense", "0.0.0.0"),
            ("127.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
            ("127.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
            ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
            ("127.0.0.1", "10.1.2.3:80, unknown", "0.0.0.0"),
            ("10.9.9.9", "10.1.1.1", "10.1.1.1"),
            ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ],
    )
    def test_address_is_the_last_one_that_no_proxy_has(self, client, caplog, peer, forwarded, address):
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        with caplog.at_level("INFO", logger="access"):
            client.get("/health", headers=headers, environ_base={"REMOTE_ADDR": peer}).close()
        assert f'"remote":"{address}"' in caplog.text

    def test_forwarded_requests_are_never_local(self, client):
        assert client.get("/api/config/type", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403

    def test_allowed_addresses_apply_to_the_client(self, client):
        _, headers = create_key(client, allowedIpAddresses=["203.0.113.5"])
        assert embed(client, headers | {"X-Forwarded-For": "203.0.113.5"}).status_code == 200
        assert embed(client, headers | {"X-Forwarded-For": "203.0.113.6"}).status_code == 401


def test_client_that_a_proxy_does_not_name_does_not_have_its_address(make_client):
    client = make_client(trusted_proxies=("10.0.0.0/8",))
    _, headers = create_key(client, allowedIpAddresses=["10.0.0.0/8"])
    for forwarded in ("203.0.113.9:4711", "unknown", "_hidden", ""):
        response = embed(client, headers | {"X-Forwarded-For": forwarded}, environ_base={"REMOTE_ADDR": "10.0.0.1"})
        assert response.status_code == 401


def test_without_trusted_proxies_the_header_means_nothing(client):
    _, headers = create_key(client, allowedIpAddresses=["203.0.113.5"])
    assert embed(client, headers | {"X-Forwarded-For": "203.0.113.5"}).status_code == 401


def test_permissions_and_models_are_enforced(client, admin):
    _, chat = create_key(client, admin, permissions=["CHAT"])
    assert code(embed(client, chat)) == (403, "model_not_allowed")
    _, other = create_key(client, admin, models=["org/tiny-chat"])
    assert code(embed(client, other)) == (403, "model_not_allowed")
    for name in ("ORG/tiny-embedding", "tiny-embedding"):
        _, allowed = create_key(client, admin, permissions=["embedding"], models=[name])
        assert embed(client, allowed).status_code == 200


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/images/edits/", "/images/variations/"])
def test_permission_for_images_does_not_include_edits(client, admin, path):
    _, headers = create_key(client, admin, permissions=["imgGen"])
    form = {"model": "tiny-image_generation", "prompt": "x", "image": (io.BytesIO(b"x"), "x.png")}
    assert code(client.post(path, data=form, headers=headers)) == (403, "model_not_allowed")


def test_service_of_a_conversation_is_that_of_its_model(client, admin, triton):
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    body = {"model": "tiny-ocr", "messages": [{"role": "user", "content": content}]}
    _, chat_only = create_key(client, admin, permissions=["chat"])
    assert code(client.post("/v1/chat/completions", json=body, headers=chat_only)) == (403, "model_not_allowed")
    _, ocr = create_key(client, admin, permissions=["ocr"])
    triton.queue_response({"text_output": "x", "boxes": "[]", "num_output_tokens": 1})
    assert client.post("/v1/chat/completions", json=body, headers=ocr).status_code == 200


def test_fallback_to_the_default_model_does_not_widen_a_key(make_client):
    client = make_client(unknown_model="default")
    _, admin = create_key(client, role="admin")
    _, headers = create_key(client, admin, models=["small-model"])
    body = {"model": "small-model", "input": "x"}
    assert code(client.post("/v1/embeddings", json=body, headers=headers)) == (403, "model_not_allowed")
    client.put("/api/config/aliases", json={"mine": "org/tiny-embedding"}, headers=admin)
    _, own = create_key(client, admin, models=["mine"])
    assert client.post("/v1/embeddings", json={"model": "mine", "input": "x"}, headers=own).status_code == 200
    _, alias = create_key(client, admin, models=["text-embedding-ada-002"])
    body = {"model": "text-embedding-ada-002", "input": "x"}
    assert client.post("/v1/embeddings", json=body, headers=alias).status_code == 200


def test_models_are_listed_for_keys_that_may_use_them(client, admin):
    _, headers = create_key(client, admin, models=["tiny-chat"])
    listed = client.get("/v1/models", headers=headers).get_json()["data"]
    assert [model["id"] for model in listed] == ["org/tiny-chat"]
    assert client.get("/v1/models/tiny-embedding", headers=headers).status_code == 404


def test_the_key_identifies_the_client_for_fair_queues(client, user, triton):
    triton.queue_response({"text_output": "", "finish_reason": "stop", "num_input_tokens": 1, "num_output_tokens": 1})
    body = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi"}]}
    assert client.post("/v1/chat/completions", json=body, headers=user).status_code == 200
    assert triton.requests[-1]["client"] == "user"


def test_remote_shutdown_needs_an_admin_key_if_there_are_keys(make_client, shutdowns):
    client = make_client(allow_remote_shutdown=True)
    client.post("/shutdown", **REMOTE).close()
    _, admin = create_key(client, role="admin")
    _, user = create_key(client, admin)
    for headers, status in (({}, 403), (user, 403), (admin, 200)):
        response = client.post("/shutdown", headers=headers, **REMOTE)
        assert response.status_code == status
        response.close()
    client.post("/shutdown").close()
    assert len(shutdowns) == 3


def test_admin_key_file(make_client, tmp_path):
    file = tmp_path / "admin"
    file.write_text("a-long-admin-key-from-a-file\n", encoding="utf-8")
    client = make_client(admin_key_file=file)
    assert client.get("/api/audit").status_code == 401
    assert client.get("/api/audit", headers=bearer("a-long-admin-key-from-a-file"), **REMOTE).status_code == 200
    assert embed(client).status_code == 401


def test_local_key_is_valid_on_this_machine_only(make_client, tmp_path):
    (tmp_path / "run" / "10100").mkdir(parents=True)
    (tmp_path / "run" / "10100" / "local_key").write_text("tr-local-0123456789abcdef", encoding="utf-8")
    client = make_client()
    create_key(client, role="admin")
    local = bearer("tr-local-0123456789abcdef")
    assert embed(client, local).status_code == 200
    assert client.get("/api/audit", headers=local).status_code == 200
    assert embed(client, local, **REMOTE).status_code == 401


def test_requests_are_rejected_while_it_is_unknown_which_keys_exist(make_client):
    client = make_client(database_url="postgresql://127.0.0.1:1/none")
    response = embed(client)
    assert code(response) == (503, "store_unavailable")
    assert response.headers["Retry-After"] == "1"
    assert client.get("/health").status_code == 200


def test_finding_a_key_costs_the_same_with_many_keys(tmp_path, monkeypatch):
    class Row:
        previous_digest = previous_until = None
        content = "{}"

        def __init__(self, number):
            self.id, self.digest = str(number), number.to_bytes(32, "big")

    pepper = Pepper(tmp_path / "pepper")
    pepper.create()
    calls = []
    monkeypatch.setattr(Pepper, "digest", lambda self, key: calls.append(key) or (7).to_bytes(32, "big"))
    for count in (10, 100_000):
        ring = KeyRing(pepper)
        ring.apply(Row(number) for number in range(count))
        calls.clear()
        found = ring.find("tr-" + "z" * 43)
        assert found.id == "7"
        assert len(calls) == 1  # one hash and one lookup


def test_local_role_is_not_for_stored_keys(client):
    response = client.post("/api/auth/api-keys", json={"role": "local"})
    assert response.status_code == 400
    assert LOCAL.role == "local"


@pytest.mark.parametrize(
    ("path", "access"),
    [
        ("/v1/chat/completions", "inference"),
        ("/chat/completions", "inference"),
        ("/v1/models", "inference"),
        ("/v2/rerank", "inference"),
        ("/api/models", "management"),
        ("/actuator/info", "management"),
        ("/actuator", "management"),
        ("/actuator/health", "open"),
        ("/actuator/health/<component>", "open"),
        ("/actuator/prometheus", "monitoring"),
        ("/openapi.json", "monitoring"),
        ("/v1/shutdown", "shutdown"),
        ("/", "open"),
    ],
)
def test_access_of_paths(path, access):
    assert access_of(path) == access


class TestLostStore:
    """A store that is lost must not open the server."""

    @pytest.fixture
    def files(self, tmp_path):
        return lambda: list((tmp_path / "data" / "10100").glob("trident.db*"))

    def delete(self, files):
        for file in files():
            file.unlink()

    def test_keys_stay_in_memory_and_no_new_store_is_made(self, client, user, admin, files):
        gateway = client.application.extensions["trident"].gateway
        self.delete(files)
        embed(client, user).close()
        gateway._check()
        gateway._flush()
        assert files() == []
        assert [embed(client, headers).status_code for headers in ({}, user)] == [401, 200]
        assert client.post("/api/auth/api-keys", json={}, headers=admin).status_code == 503

    def test_new_process_rejects_requests(self, make_client, user, files):
        self.delete(files)
        client = make_client()
        assert code(embed(client)) == (503, "store_unavailable")
        assert code(embed(client, user)) == (503, "store_unavailable")

    def test_new_process_rejects_requests_even_if_the_whole_folder_is_missing(self, make_client, user, tmp_path):
        shutil.rmtree(tmp_path / "data")
        assert code(embed(make_client())) == (503, "store_unavailable")

    def test_store_that_is_replaced_by_an_empty_one_does_not_open_the_server(self, client, user, files, tmp_path):
        gateway = client.application.extensions["trident"].gateway
        self.delete(files)
        gateway.store._is_prepared = False
        gateway.store.write(lambda connection, revision: None)  # as a new process would
        gateway._check()
        assert [embed(client, headers).status_code for headers in ({}, user)] == [401, 200]

    def test_older_copy_with_keys_is_used(self, client, admin, user, files, tmp_path):
        gateway = client.application.extensions["trident"].gateway
        gateway.store.close()
        with sqlite3.connect(tmp_path / "data" / "10100" / "trident.db") as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("UPDATE state SET revision = 1")
            database.execute("DELETE FROM api_keys WHERE id = 'user'")
        gateway._check()
        assert embed(client, user).status_code == 401
        assert client.get("/api/audit", headers=admin).status_code == 200

    def test_new_process_notices_that_the_store_was_replaced(self, make_client, user, files):
        self.delete(files)
        Store(make_client().application.extensions["trident"].settings.store_url).write(lambda *_: None)
        assert code(embed(make_client())) == (503, "store_unavailable")

    def test_process_without_the_pepper_closes_when_the_first_key_is_created(self, make_client, tmp_path):
        shared = f"sqlite:///{tmp_path / 'shared.db'}"
        first = make_client(database_url=shared, pepper_file=tmp_path / "first")
        second = make_client(database_url=shared, pepper_file=tmp_path / "second", port=10200)
        assert embed(second).status_code == 200
        create_key(first)
        second.application.extensions["trident"].gateway._check()
        assert code(embed(second)) == (503, "store_unavailable")

    def test_without_keys_another_pepper_may_be_used(self, make_client, client, tmp_path):
        identifier, _ = create_key(client)
        client.delete(f"/api/auth/api-keys/{identifier}")
        (tmp_path / "data" / "10100" / "pepper").unlink()
        client = make_client(pepper_file=tmp_path / "other")
        assert embed(client).status_code == 200
        _, headers = create_key(client)
        assert [embed(client, each).status_code for each in ({}, headers)] == [401, 200]
        assert embed(make_client(pepper_file=tmp_path / "other"), headers).status_code == 200

    def test_wrong_and_missing_pepper_are_noticed(self, make_client, user, tmp_path):
        pepper = tmp_path / "data" / "10100" / "pepper"
        pepper.write_bytes(b"x" * 32)
        assert code(embed(make_client(), user)) == (503, "store_unavailable")
        pepper.unlink()
        assert code(embed(make_client(), user)) == (503, "store_unavailable")


def test_requests_without_key_do_not_fill_the_tables(client, user, admin):
    for _ in range(5):
        embed(client).close()
        embed(client, bearer("tr-" + "x" * 43)).close()
        client.options("/v1/embeddings", headers={"Origin": "https://a.example"}).close()
    client.post("/v1/embeddings", json={"model": "none", "input": "x"}, headers=user).close()
    gateway = client.application.extensions["trident"].gateway
    gateway.usage.flush()
    errors = client.get("/api/monitoring/errors", headers=admin).get_json()["errors"]
    assert [error["error"] for error in errors] == ["model_not_found: model"]
    assert data_of(client.get("/api/usage", headers=admin))["rows"] == []


def test_text_of_the_client_is_not_stored_with_errors(client, user, admin):
    body = {"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "metadata": {"SECRET\u0000": 1}}
    client.post("/v1/chat/completions", json=body, headers=user).close()
    client.application.extensions["trident"].gateway.usage.flush()
    (error,) = client.get("/api/monitoring/errors", headers=admin).get_json()["errors"]
    assert error["error"] == "invalid_type: metadata"


def test_keys_in_paths_are_not_logged(client, user, admin, caplog, capfd):
    key = user["Authorization"].removeprefix("Bearer ")
    with caplog.at_level("DEBUG"):
        client.delete(f"/api/auth/api-keys/{key}", headers=admin).close()
        client.get(f"/{key}").close()
    output = capfd.readouterr()
    assert key not in caplog.text + output.out + output.err
    assert "Traceback" not in output.err  # gevent prints exceptions in its threads


def test_local_key_works_if_the_host_is_a_name(make_client, tmp_path, monkeypatch):
    (tmp_path / "run" / "10100").mkdir(parents=True)
    (tmp_path / "run" / "10100" / "local_key").write_text("tr-local-0123456789abcdef", encoding="utf-8")
    monkeypatch.setattr("frontend.http.origins._addresses", lambda host: frozenset({"192.168.1.7"}))
    client = make_client(host="server.lan", trusted_hosts=("server.lan",))
    create_key(client)
    local = bearer("tr-local-0123456789abcdef")
    peer = {"environ_base": {"REMOTE_ADDR": "192.168.1.7"}}
    assert embed(client, local, **peer).status_code == 200
    assert embed(client, local, **REMOTE).status_code == 401


def test_store_that_is_lost_later_changes_nothing(client, user, admin, monkeypatch):
    gateway = client.application.extensions["trident"].gateway

    def fail(*_, **__):
        raise StoreUnavailable("The store does not respond")

    monkeypatch.setattr(gateway.store, "_run", fail)
    gateway._check()
    assert embed(client, user).status_code == 200
    response = client.post("/api/auth/api-keys", json={}, headers=admin)
    assert (response.status_code, response.get_json()["errorCode"]) == (503, "DATABASE_ERROR")


def test_management_is_never_open_to_web_pages(make_client):
    """JAiRouter allows all origins on its management API."""
    client = make_client(allow_origins=("*",))
    for path in ("/api/config/type", "/api/auth/api-keys", "/actuator/info", "/v1/organization/x"):
        response = client.options(path, headers={"Origin": "https://a.example", "Access-Control-Request-Method": "GET"})
        assert "Access-Control-Allow-Origin" not in response.headers
        response = client.get(path, headers={"Origin": "https://a.example"})
        assert "Access-Control-Allow-Origin" not in response.headers


def test_preflight_of_inference_needs_no_key(make_client):
    client = make_client(allow_origins=("https://a.example",))
    create_key(client)
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    response = client.options("/v1/embeddings", headers=headers)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (204, "https://a.example")


def test_body_is_not_read_before_the_key_is_checked(client, user):
    response = client.post("/v1/embeddings", data=b"x" * 6_000_000, headers={"Content-Type": "application/json"})
    assert response.status_code == 401
