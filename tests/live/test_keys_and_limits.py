"""API keys, limits, configuration and usage on the real stack, with real Redis and PostgreSQL servers."""

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests
from openai import OpenAI

from tests.support.live import MODEL, url, user, wait_until
from tests.support.postgres import postgres_server
from tests.support.redis_server import redis_server
from tests.support.stack import running_stack
from tests.support.traffic import OK, chat, embed, running_traffic

EMBEDDING = "bge-small-en-v1.5"
MODELS = [EMBEDDING, MODEL]


@pytest.fixture(scope="module")
def base():
    """Trident with Triton. The other fixtures run further frontends with the same Triton."""
    with running_stack(MODELS) as settings:
        yield settings


@pytest.fixture(scope="module")
def redis():
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def shared(base, redis, postgres, tmp_path_factory):
    """Four processes with Redis and PostgreSQL."""
    flags = ["--workers", "4", "--redis-url", redis.url, "--database-url", postgres.url]
    with running_stack(MODELS, *flags, "--data", str(tmp_path_factory.mktemp("data")), triton_of=base) as settings:
        yield settings


@pytest.fixture
def single(base, tmp_path):
    """One process with a store of its own in a file."""
    with running_stack(MODELS, "--data", str(tmp_path), triton_of=base) as settings:
        yield settings


class Admin:
    """Sends requests to the management API, with an admin key after `create_root`."""

    def __init__(self, settings):
        self._settings, self.headers = settings, {}

    def __call__(self, method, path, **options):
        return requests.request(method, url(self._settings, path), headers=self.headers, timeout=30, **options)

    def data(self, method, path, **options):
        response = self(method, path, **options)
        assert response.ok, response.text
        return response.json()["data"]

    def create_root(self, identifier):
        key = self.data("POST", "/api/auth/api-keys", json={"keyId": identifier, "role": "admin"})["keyValue"]
        self.headers = {"Authorization": f"Bearer {key}"}
        return key

    def create(self, **fields):
        return self.data("POST", "/api/auth/api-keys", json=fields)["keyValue"]


@pytest.fixture(scope="module")
def shared_admin(shared):
    admin = Admin(shared)
    admin.create_root("root")
    # Until a process has noticed the first key, it accepts all requests.
    address = url(shared, "/v1/models")
    wait_until(lambda: {requests.get(address, timeout=10).status_code for _ in range(20)} == {401}, 5, "keys to apply")
    return admin


def embed_once(settings, key):
    body = {"model": EMBEDDING, "input": "hello"}
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(url(settings, "/v1/embeddings"), json=body, headers=headers, timeout=30).status_code


class TestSeveralProcesses:
    def test_limit_is_exact_for_64_clients(self, shared, shared_admin):
        key = shared_admin.create(keyId="exact", dailyRequestLimit=100)
        wait_for_key(shared, key, 200)
        with ThreadPoolExecutor(64) as pool:
            statuses = Counter(pool.map(lambda _: embed_once(shared, key), range(300)))
        # The requests that waited for the key were admitted too.
        used = shared_admin.data("GET", "/api/auth/api-keys/exact/quota")["limits"]["requestsPerDay"]["used"]
        assert used == 100
        assert set(statuses) == {200, 429}
        assert statuses[200] < 100
        assert statuses[200] + statuses[429] == 300

    def test_change_reaches_all_processes_within_seconds(self, shared, shared_admin):
        key = shared_admin.create(keyId="leaver")
        wait_for_key(shared, key, 200)
        shared_admin.data("DELETE", "/api/auth/api-keys/leaver")
        time.sleep(1.5)
        # After too many requests with a wrong key, as before all processes knew the key, the status is 429.
        assert {embed_once(shared, key) for _ in range(12)} <= {401, 429}
        shared_admin.data("PUT", "/api/loadbalancer/config/embedding", json={"type": "random"})
        wait_until(
            lambda: (
                {shared_admin.data("GET", "/api/loadbalancer/config/embedding")["type"] for _ in range(20)}
                == {"random"}
            ),
            5,
            "all processes to use the strategy",
        )

    def test_no_request_is_lost_without_redis_and_postgresql(self, shared, shared_admin, redis, postgres):
        """Both are killed under load, and come back: keys stay valid, limits are counted, changes are rejected."""
        key = shared_admin.create(keyId="steady", rateLimitPerMinute=1_000_000)
        wait_for_key(shared, key, 200)
        sends = [embed(url(shared, ""), EMBEDDING, key)] * 4 + [chat(url(shared, ""), MODEL, stream=True, key=key)]
        with running_traffic({"all": sends}) as traffic:
            wait_until(lambda: traffic.count(OK) > 50, 30, "requests")
            redis.kill()
            postgres.kill()
            before = traffic.count(OK)
            wait_until(lambda: traffic.count(OK) > before + 300, 60, "requests without Redis and PostgreSQL")
            response = shared_admin("POST", "/api/auth/api-keys", json={})
            assert (response.status_code, response.json()["errorCode"]) == (503, "DATABASE_ERROR")
            redis.start()
            postgres.start()
            wait_until(
                lambda: shared_admin("POST", "/api/auth/api-keys", json={}).status_code == 201, 30, "changes to work"
            )
        assert not traffic.failed()
        metrics = shared_admin("GET", "/metrics").text
        assert "trident_redis_up" in metrics
        wait_until(lambda: "trident_redis_up 1.0" in shared_admin("GET", "/metrics").text, 10, "Redis to be used again")

    def test_no_request_hangs_with_redis_and_postgresql(self, shared, shared_admin, redis, postgres):
        key = shared_admin.create(keyId="patient", rateLimitPerMinute=1_000_000)
        wait_for_key(shared, key, 200)
        with running_traffic({"all": [embed(url(shared, ""), EMBEDDING, key)] * 4}) as traffic:
            redis.hang()
            postgres.hang()
            wait_until(lambda: traffic.count(OK) > 200, 60, "requests while both hang")
            redis.go_on()
            postgres.go_on()
        assert not traffic.failed()
        assert traffic.slowest["all"] < 10

    def test_limits_without_redis_are_rejected_at_the_start(self, base, tmp_path):
        limits = '{"global": {"requestsPerMinute": 5}}'
        command = [sys.executable, "-m", "trident", "serve", "--port", "1", "--workers", "2", "--data", str(tmp_path)]
        command += ["--triton", base.triton_address, "--rate-limits", limits, "--port", str(base.port + 10)]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
        assert result.returncode == 1
        assert "Limits need Redis (--redis-url)" in result.stderr


def wait_for_key(settings, key, status):
    # Some processes may get none of the requests below, and all follow a change within a second.
    time.sleep(1)
    wait_until(lambda: {embed_once(settings, key) for _ in range(12)} == {status}, 5, f"status {status} everywhere")


class TestOneProcess:
    def test_official_client_sees_openai_errors(self, single):
        admin = Admin(single)
        admin.create_root("root")
        key = admin.create(rateLimitPerMinute=2)
        client = OpenAI(base_url=url(single, "/v1"), api_key=key, max_retries=0, timeout=60)
        raw = client.embeddings.with_raw_response.create(model=EMBEDDING, input="a")
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        assert client.embeddings.create(model=EMBEDDING, input="a").data
        with pytest.raises(openai.RateLimitError) as raised:
            client.embeddings.create(model=EMBEDDING, input="a")
        assert raised.value.code == "rate_limit_exceeded"
        assert int(raised.value.response.headers["Retry-After"]) in (29, 30)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="tr-wrong-wrong-wrong-wrong").models.list()
        with pytest.raises(openai.PermissionDeniedError):
            client.with_options(api_key=admin.headers["Authorization"][7:]).embeddings.create(
                model=EMBEDDING, input="a"
            )

    def test_streams_that_are_cut_off_are_charged_for_what_they_got(self, single):
        admin = Admin(single)
        admin.create_root("root")
        key = admin.create(keyId="leaver", dailyTokenLimit=1000)
        client = OpenAI(base_url=url(single, "/v1"), api_key=key, max_retries=0, timeout=60)
        stream = client.chat.completions.create(
            model=MODEL, messages=user("Count to one thousand"), stream=True, max_tokens=900, temperature=0
        )
        for _, _chunk in zip(range(8), stream, strict=False):
            pass
        stream.close()
        quota = "/api/auth/api-keys/leaver/quota"
        wait_until(lambda: admin.data("GET", quota)["limits"]["tokensPerDay"]["used"] > 0, 10, "the charge")
        used = admin.data("GET", quota)["limits"]["tokensPerDay"]["used"]
        assert 30 < used < 400  # the prompt and the tokens until the client left
        wait_until(lambda: admin.data("GET", "/api/usage?keyId=leaver")["rows"], 10, "the usage")
        (row,) = admin.data("GET", "/api/usage?keyId=leaver")["rows"]
        assert row["inputTokens"] + row["outputTokens"] == used

    def test_instances_models_and_breakers_can_be_managed(self, single):
        admin = Admin(single)
        admin.create_root("root")
        key = admin.create()
        instance = admin.data("GET", "/api/config/instance/type/embedding")[0]["instanceId"]
        body = {"instanceId": instance, "instance": {"enabled": False}}
        admin.data("PUT", "/api/config/instance/update/embedding", json=body)
        assert embed_once(single, key) == 503
        admin.data("POST", "/api/config/version/apply/0")
        assert embed_once(single, key) == 200
        admin("POST", f"/api/monitoring/circuit-breaker/force-open?instanceId={instance}")
        assert embed_once(single, key) == 503
        admin("POST", f"/api/monitoring/circuit-breaker/force-close?instanceId={instance}")
        assert embed_once(single, key) == 200
        assert admin.data("POST", "/api/models/unload", json={"model": EMBEDDING})["instances"] == [instance]
        assert embed_once(single, key) in (404, 503)
        assert admin.data("POST", "/api/models/load", json={"model": EMBEDDING})["instances"] == [instance]
        assert embed_once(single, key) == 200
        actions = [row["action"] for row in admin.data("GET", "/api/audit")]
        assert actions[:4] == ["model.load", "model.unload", "breaker.reset", "breaker.force-open"]

    def test_instance_of_another_triton_is_checked_and_added(self, single, base):
        admin = Admin(single)
        address = {"baseUrl": f"http://localhost:{base.triton_http_port}"}
        ports = {"grpcPort": base.triton_grpc_port, "metricsPort": base.triton_metrics_port}
        address |= ports
        wrong = admin("POST", "/api/config/instance/add/chat", json=address | {"name": EMBEDDING})
        assert (wrong.status_code, wrong.json()["data"]) == (400, {"param": "name"})
        nobody = admin("POST", "/api/config/instance/add/chat", json={"name": MODEL, "baseUrl": "http://127.0.0.1:9"})
        assert (nobody.status_code, nobody.json()["data"]) == (400, {"param": "baseUrl"})
        admin.data("POST", "/api/config/instance/add/chat", json=address | {"name": MODEL})
        wait_until(lambda: len(admin.data("GET", "/api/config/instance/type/chat")) == 2, 10, "two instances")
        query = f"modelName={MODEL}&baseUrl={address['baseUrl']}"
        admin.data("DELETE", f"/api/config/instance/del/chat?{query}")
        wait_until(lambda: len(admin.data("GET", "/api/config/instance/type/chat")) == 1, 10, "one instance")

    def test_configuration_survives_a_restart(self, base, tmp_path):
        flags = ["--data", str(tmp_path)]
        with running_stack(MODELS, *flags, triton_of=base) as settings:
            admin = Admin(settings)
            root = admin.create_root("root")
            admin.data("PUT", "/api/config/aliases", json={"mine": EMBEDDING})
            folder = tmp_path / str(settings.port)
            assert oct(folder.stat().st_mode)[-3:] == "700"
            assert {oct(file.stat().st_mode)[-3:] for file in folder.iterdir() if file.suffix != ".lock"} == {"600"}
            command = [sys.executable, "-m", "trident", "stop", "--port", str(settings.port)]
            subprocess.run(command, check=True, capture_output=True)
            serve = [sys.executable, "-m", "trident", "serve", *MODELS, "--port", str(settings.port), *flags]
            serve += ["--triton", base.triton_address, "--triton-http-port", str(base.triton_http_port)]
            with (tmp_path / "log").open("w", encoding="utf-8") as log:
                again = subprocess.Popen(serve, stdout=log, stderr=subprocess.STDOUT)
            try:
                text = tmp_path / "log"
                wait_until(lambda: "serves OpenAI's API" in text.read_text(encoding="utf-8"), 60, "the restart")
                assert "Version 1 of the configuration applies" in text.read_text(encoding="utf-8")
                assert admin.data("GET", "/api/config/aliases") == {"mine": EMBEDDING}
                assert root
            finally:
                again.terminate()
                again.wait(30)

    def test_keys_are_nowhere(self, single, base, tmp_path):
        """No log, response, metric, trace or table has a key, or a part of it."""
        admin = Admin(single)
        keys = [admin.create_root("root"), admin.create(keyId="user")]
        keys.append(admin.data("POST", "/api/auth/api-keys/user/rotate", json={"overlapSeconds": 60})["keyValue"])
        wrong = "tr-WrongKeyWrongKeyWrongKeyWrongKeyWrongKeyWr"
        for key in (*keys, wrong):
            embed_once(single, key)
            requests.get(url(single, f"/v1/models?api_key={key}"), timeout=10)
            requests.get(url(single, f"/{key}"), headers={"X-API-Key": key}, timeout=10)
            both = {"X-API-Key": key, "Authorization": f"Bearer {wrong}"}
            requests.post(url(single, "/v1/chat/completions"), headers=both, json={"model": key}, timeout=10)
        time.sleep(1.5)  # the usage and the errors are written
        paths = "/metrics /api/audit /api/usage /api/auth/api-keys /api/auth/api-keys/export /api/config/type"
        paths += " /api/monitoring/errors /api/monitoring/overview /actuator/info /v1/models"
        texts = {path: admin("GET", path).text for path in paths.split()}
        run = single.run_folder
        for file in [*run.glob("*.log*"), *base.run_folder.glob("*.log*")]:
            texts[str(file)] = file.read_text(encoding="utf-8", errors="replace")
        with sqlite3.connect(tmp_path / str(single.port) / "trident.db") as database:
            texts["database"] = "\n".join(map(repr, database.iterdump()))
        for file in (tmp_path / str(single.port)).iterdir():
            texts[str(file)] = file.read_bytes().decode("latin-1")
        for name, text in texts.items():
            for key in (*keys, wrong):
                assert key not in text, name
                assert key[3:20] not in text, name
                assert key[-20:] not in text, name
