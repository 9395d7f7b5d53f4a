"""/api/config and its relatives: services, instances, versions, limits, aliases; JAiRouter's examples and faults."""

import io
import threading
import time

import pytest

from frontend.errors import DeadlineExceeded, EngineFailure, Unavailable
from frontend.instance_config import parse_instance
from frontend.triton.instances_file import write_instances
from tests.unit.conftest import chat, last
from tests.unit.frontend.endpoints.management_support import create_key, data_of, embed, error_code

TYPE, INSTANCE, VERSION = "/api/config/type", "/api/config/instance", "/api/config/version"
URL = "http://127.0.0.1:10101"
EMBEDDING = f"tiny-embedding@{URL}"
OTHER = {"name": "tiny-chat", "baseUrl": "http://10.1.1.1:8000"}


class TestServices:
    def test_names(self, client):
        names = ["chat", "embedding", "rerank", "tts", "stt", "imgGen", "imgEdit", "background", "ocr"]
        assert data_of(client.get(f"{TYPE}/services")) == names
        assert data_of(client.get("/api/services")) == names

    def test_configuration_shows_all_instances(self, client):
        data = data_of(client.get(TYPE))
        assert data["services"]["embedding"]["loadBalance"] == {"type": "least-connections"}
        assert data["services"]["embedding"]["instances"][0]["instanceId"] == EMBEDDING
        assert data_of(client.get(f"{TYPE}/embedding/models")) == ["tiny-embedding"]

    @pytest.mark.parametrize(
        "body",
        [
            {"loadBalance": {"type": "round-robin"}},
            {"loadBalancer": "round_robin"},
            {"load-balance": {"type": "ROUND_ROBIN", "hash-algorithm": "md5", "virtual-nodes": 150}},
        ],
    )
    def test_strategy_in_all_spellings(self, client, body):
        data = data_of(client.put(f"{TYPE}/services/chat", json=body))
        assert data["loadBalance"]["type"] == "round-robin"
        assert client.application.extensions["trident"].router.strategy("chat") == "round-robin"

    @pytest.mark.parametrize("service", ["imgGen", "imggen", "img-gen", "IMG_GEN", "imgEdit", "img-edit"])
    def test_image_services_in_all_spellings(self, client, service):
        """JAiRouter's own validator refuses imgGen and imgEdit."""
        assert client.put(f"{TYPE}/services/{service}", json={"loadBalance": {"type": "random"}}).status_code == 200

    def test_create_and_delete(self, client):
        body = {"rateLimit": {"capacity": 3, "rate": 1}}
        assert data_of(client.post(f"{TYPE}/services/embedding", json=body), 201)["rateLimit"]["capacity"] == 3
        assert error_code(client.post(f"{TYPE}/services/embedding", json=body)) == (409, "DUPLICATE_RESOURCE")
        assert [embed(client).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert data_of(client.delete(f"{TYPE}/services/embedding")) is None
        assert "rateLimit" not in data_of(client.get(f"{TYPE}/services/embedding"))
        assert embed(client).status_code == 200

    def test_update_merges_objects(self, client):
        client.put(f"{TYPE}/services/chat", json={"rateLimit": {"capacity": 3, "rate": 1}})
        data = data_of(client.put(f"{TYPE}/services/chat", json={"rateLimit": {"rate": 5}}))
        assert (data["rateLimit"]["capacity"], data["rateLimit"]["rate"]) == (3, 5)
        data = data_of(client.put(f"{TYPE}/services/chat", json={"rateLimit": None}))
        assert "rateLimit" not in data

    def test_instances_of_the_settings_can_be_replaced_and_removed(self, make_client):
        client = make_client(instances=("tiny-chat@http://10.1.1.1:8000", "tiny-embedding@http://10.1.1.1:8000"))
        path = f"{TYPE}/services/chat"
        shown = data_of(client.get(path))
        assert data_of(client.put(path, json=shown))["instances"] == shown["instances"]
        data = data_of(client.put(path, json={"instances": [{"name": "tiny-chat", "baseUrl": "http://10.9.9.9:8000"}]}))
        assert [each["instanceId"] for each in data["instances"]] == ["tiny-chat@http://10.9.9.9:8000"]
        assert data_of(client.put(path, json={"instances": None, "adapter": "x"}))["instances"] == data["instances"]
        client.delete(path)
        assert data_of(client.get(path))["instances"] == []
        assert len(data_of(client.get(f"{TYPE}/services/embedding"))["instances"]) == 1

    def test_own_instances_can_be_put_as_they_were_shown(self, make_client):
        client = make_client(triton_grpc_port=20000)
        path = f"{TYPE}/services/chat"
        assert data_of(client.put(path, json=data_of(client.get(path))))["instances"][0]["grpcPort"] == 20000
        assert len(data_of(client.get(f"{INSTANCE}/type/chat"))) == 1

    def test_changes_of_the_settings_file_are_in_the_first_version(self, make_client):
        client = make_client(instances=("tiny-chat@http://10.1.1.1:8000",))
        services = client.application.extensions["trident"]
        changed = [parse_instance({"name": "tiny-chat", "base_url": f"http://10.1.1.{end}:8000"}) for end in (1, 2)]
        services.settings.run_folder.mkdir(parents=True, exist_ok=True)
        write_instances(services.settings, changed)
        services.router.configure(changed)
        client.put("/api/loadbalancer/config/chat", json={"type": "random"})
        assert len(data_of(client.get(f"{INSTANCE}/type/chat"))) == 2

    def test_version_that_is_invalid_here_is_skipped(self, client):
        gateway = client.application.extensions["trident"].gateway
        client.put("/api/loadbalancer/config/chat", json={"type": "random"})
        gateway.versions.add(1, {"of the future": 1}, "me", "test")
        gateway._check()
        assert gateway.version == 1
        assert embed(client).status_code == 200
        assert error_code(client.get(f"{VERSION}/2"))[0] == 400
        assert error_code(client.post(f"{VERSION}/rollback/2"))[0] == 400
        client.put("/api/loadbalancer/config/chat", json={"type": "ip-hash"})
        assert (gateway.version, data_of(client.get("/api/loadbalancer/config/chat"))["type"]) == (3, "ip-hash")

    def test_update_replaces_instances(self, client):
        client.post(f"{INSTANCE}/add/chat?force=true", json=OTHER)
        body = {"instances": [{"name": "tiny-chat", "baseUrl": "http://10.2.2.2:8000", "weight": 2}]}
        wrong = {"instances": [{"name": "tiny-rerank", "baseUrl": "http://10.2.2.2:8000"}]}
        assert error_code(client.put(f"{TYPE}/services/chat", json=wrong))[0] == 400
        client.put(f"{TYPE}/services/chat", json=body)
        version = data_of(client.get(f"{VERSION}/current"))
        stored = data_of(client.get(f"{VERSION}/{version}"))["services"]["chat"]["instances"]
        assert [each["instanceId"] for each in stored] == ["tiny-chat@http://10.2.2.2:8000"]

    def test_fields_without_effect_are_kept_and_named(self, client):
        body = {"adapter": "ollama", "fallback": {"enabled": True, "strategy": "cache"}}
        response = client.put(f"{TYPE}/services/chat", json=body)
        assert response.get_json()["message"] == "The service chat is changed; 'adapter', 'fallback' have no effect"
        data = data_of(client.get(f"{TYPE}/services/chat"))
        assert (data["adapter"], data["fallback"]["strategy"]) == ("ollama", "cache")

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"rateLimit": {"rate": 0}}, "rateLimit.rate"),
            ({"rateLimit": {"rate": -1}}, "rateLimit.rate"),
            ({"rateLimit": {"algorithm": "magic"}}, "rateLimit.algorithm"),
            ({"rateLimit": {"scope": "planet"}}, "rateLimit.scope"),
            ({"rateLimit": {"burst": 5}}, "rateLimit.burst"),
            ({"circuitBreaker": {"failureThreshold": 0}}, "circuitBreaker.failureThreshold"),
            ({"loadBalance": {"type": "best"}}, "loadBalance.type"),
            ({"colour": 1}, "colour"),
            ({"instances": [{"name": "x"}]}, "instances[0].baseUrl"),
            ({"instances": {}}, "instances"),
        ],
    )
    def test_invalid_fields_are_named_and_change_nothing(self, client, body, param):
        response = client.put(f"{TYPE}/services/chat", json=body)
        assert error_code(response)[0] == 400
        assert response.get_json()["data"] == {"param": param}
        assert data_of(client.get(f"{VERSION}/current")) == 0

    def test_prefix_affinity_is_for_chat_only(self, client):
        body = {"loadBalance": {"type": "prefix-affinity"}}
        assert error_code(client.put(f"{TYPE}/services/embedding", json=body))[0] == 400
        assert data_of(client.put(f"{TYPE}/services/chat", json=body))

    @pytest.mark.parametrize("method", ["get", "put", "delete"])
    def test_unknown_service(self, client, method):
        response = client.open(f"{TYPE}/services/cooking", method=method.upper(), json={})
        assert error_code(response) == (404, "SERVICE_NOT_FOUND")

    def test_breaker_applies_at_once(self, client, triton):
        body = {"circuitBreaker": {"failureThreshold": 2, "timeout": 30000, "successThreshold": 3}}
        client.put(f"{TYPE}/services/embedding", json=body)
        breaker = next(
            each for each in client.get("/api/monitoring/circuit-breaker").get_json() if each["id"] == EMBEDDING
        )
        assert (breaker["failureThreshold"], breaker["successThreshold"], breaker["timeout"]) == (2, 3, 30000)
        triton.infer_failures = dict.fromkeys(range(9), EngineFailure("broken"))
        for _ in range(3):
            embed(client)
        response = embed(client)
        assert (response.status_code, response.get_json()["error"]["type"]) == (503, "circuit_breaker_open")

    def test_disabled_breaker_never_opens(self, client, triton):
        client.put(f"{TYPE}/services/embedding", json={"circuitBreaker": {"enabled": False, "failureThreshold": 1}})
        triton.infer_failures = dict.fromkeys(range(30), EngineFailure("broken"))
        codes = {embed(client).get_json()["error"]["code"] for _ in range(20)}
        assert "circuit_breaker_open" not in codes


class TestInstances:
    def test_list_and_get(self, client):
        listed = data_of(client.get(f"{INSTANCE}/type/embedding"))
        assert [each["instanceId"] for each in listed] == [EMBEDDING]
        query = f"modelName=tiny-embedding&baseUrl={URL}"
        assert data_of(client.get(f"{INSTANCE}/info/embedding?{query}"))["weight"] == 1
        assert data_of(client.get(f"{INSTANCE}/embedding/{EMBEDDING}"))["instanceId"] == EMBEDDING
        assert error_code(client.get(f"{INSTANCE}/info/chat?{query}")) == (404, "INSTANCE_NOT_FOUND")
        assert error_code(client.get(f"{INSTANCE}/info/chat?modelName=x")) == (400, "MISSING_PARAMETER")
        assert len(data_of(client.get("/api/instances"))) == 8

    def test_add_and_remove(self, client):
        data = data_of(client.post(f"{INSTANCE}/add/chat", json=OTHER), 201)
        assert data["instanceId"] == "tiny-chat@http://10.1.1.1:8000"
        assert len(data_of(client.get(f"{INSTANCE}/type/chat"))) == 2
        assert error_code(client.post(f"{INSTANCE}/add/chat", json=OTHER)) == (409, "DUPLICATE_RESOURCE")
        query = "modelName=tiny-chat&baseUrl=http://10.1.1.1:8000"
        assert data_of(client.delete(f"{INSTANCE}/del/chat?{query}")) is None
        assert len(data_of(client.get(f"{INSTANCE}/type/chat"))) == 1
        assert error_code(client.delete(f"{INSTANCE}/del/chat?{query}")) == (404, "INSTANCE_NOT_FOUND")

    def test_secrets_are_masked_and_not_stored(self, client):
        body = OTHER | {"apiKey": "sk-secret", "headers": {"X-Token": "sk-other"}}
        response = client.post(f"{INSTANCE}/add/chat", json=body)
        assert "'apiKey', 'headers' have no effect" in response.get_json()["message"]
        assert data_of(response, 201)["apiKey"] == "***"
        gateway = client.application.extensions["trident"].gateway
        texts = [client.get(path).get_data(as_text=True) for path in (TYPE, f"{VERSION}/1", "/api/audit")]
        for text in (*texts, str(gateway.versions.get(1))):
            assert "sk-secret" not in text
            assert "sk-other" not in text

    def test_paths_do_not_make_two_instances_of_one(self, client):
        """In JAiRouter, two instances that differ in their path share an ID."""
        assert client.post(f"{INSTANCE}/add/chat", json=OTHER | {"path": "/a"}).status_code == 201
        response = client.post(f"{INSTANCE}/add/chat", json=OTHER | {"path": "/b"})
        assert error_code(response) == (409, "DUPLICATE_RESOURCE")

    def test_partial_update(self, client):
        """JAiRouter's examples send only the fields that change."""
        body = {"instanceId": EMBEDDING, "instance": {"weight": 4}}
        data = data_of(client.put(f"{INSTANCE}/update/embedding", json=body))
        assert (data["weight"], data["enabled"], data["name"]) == (4, True, "tiny-embedding")
        body = {"instanceId": EMBEDDING, "instance": {"status": "inactive"}}
        assert data_of(client.put(f"{INSTANCE}/update/embedding", json=body))["weight"] == 4
        assert embed(client).status_code == 503
        client.put(f"{INSTANCE}/update/embedding", json={"instanceId": EMBEDDING, "instance": {"enabled": True}})
        assert embed(client).status_code == 200

    def test_other_services_do_not_have_the_instance(self, client):
        client.post(f"{INSTANCE}/add/chat", json=OTHER)
        identifier = "tiny-chat@http://10.1.1.1:8000"
        body = {"instanceId": identifier, "instance": {"weight": 2}}
        assert error_code(client.put(f"{INSTANCE}/update/rerank", json=body)) == (404, "INSTANCE_NOT_FOUND")
        query = "modelName=tiny-chat&baseUrl=http://10.1.1.1:8000"
        assert error_code(client.delete(f"{INSTANCE}/del/tts?{query}")) == (404, "INSTANCE_NOT_FOUND")
        body = {"instanceId": identifier, "instance": {"baseUrl": URL}}
        assert error_code(client.put(f"{INSTANCE}/update/chat", json=OTHER | body))[0] == 400
        assert len(data_of(client.get(f"{INSTANCE}/type/chat"))) == 2

    def test_paths_with_ids(self, client):
        assert client.post(f"{INSTANCE}/chat", json=OTHER).status_code == 201
        path = f"{INSTANCE}/chat/tiny-chat@grpc://10.1.1.1:8001"
        assert data_of(client.put(path, json={"weight": 3}))["weight"] == 3
        assert data_of(client.get(f"{path}/rate-limit")) is None
        assert data_of(client.get(f"{path}/circuit-breaker")) is None
        assert data_of(client.delete(path)) is None
        assert len(data_of(client.get(f"{INSTANCE}/type/chat"))) == 1

    def test_existing_and_contradictory_instances_are_rejected(self, client):
        own = {"name": "tiny-embedding", "baseUrl": URL}
        assert error_code(client.post(f"{INSTANCE}/add/embedding", json=own)) == (409, "DUPLICATE_RESOURCE")
        assert error_code(client.post(f"{INSTANCE}/add/chat", json=OTHER | {"service": "tts"}))[0] == 400
        contradictory = OTHER | {"enabled": True, "status": "inactive"}
        assert error_code(client.post(f"{INSTANCE}/add/chat", json=contradictory))[0] == 400

    def test_instance_whose_triton_is_down_can_be_disabled(self, make_client, triton):
        triton.down = Unavailable("no route")
        client = make_client(instances=("tiny-chat@http://10.1.1.1:8000", "http://10.1.1.2:8000"))
        body = {"instanceId": "tiny-chat@http://10.1.1.1:8000", "instance": {"enabled": False}}
        assert data_of(client.put(f"{INSTANCE}/update/chat", json=body))["enabled"] is False
        body = {"instanceId": "@http://10.1.1.2:8000", "instance": {"weight": 3}}
        assert data_of(client.put(f"{INSTANCE}/update/chat", json=body))["weight"] == 3

    @pytest.mark.parametrize("change", [{"enabled": False}, {"status": "inactive"}])
    def test_what_was_shown_can_be_put_with_a_change(self, client, change):
        path = f"{INSTANCE}/embedding/{EMBEDDING}"
        assert data_of(client.put(path, json=data_of(client.get(path)) | change))["enabled"] is False
        service = data_of(client.get(f"{TYPE}/services/embedding"))
        service["instances"][0] |= {"status": "active"}
        assert data_of(client.put(f"{TYPE}/services/embedding", json=service))["instances"][0]["enabled"] is True

    def test_changed_algorithm_of_a_limit_applies(self, client):
        path = f"{TYPE}/services/embedding"
        client.put(path, json={"rateLimit": {"capacity": 100, "rate": 10}})
        data = data_of(client.put(path, json={"rateLimit": {"windowSize": 60, "maxRequests": 2}}))
        assert data["rateLimit"]["algorithm"] == "sliding-window"
        assert [embed(client).status_code for _ in range(3)] == [200, 200, 429]

    def test_instances_that_never_responded_are_shown(self, client, triton):
        triton.states = [state for state in triton.states if state.name != "tiny-rerank"]
        body = {"name": "tiny-rerank", "baseUrl": "http://10.1.1.9:8000"}
        assert client.post(f"{INSTANCE}/add/rerank?force=true", json=body).status_code == 201
        shown = client.get("/api/monitoring/instances").get_json()["services"]["rerank"]["instances"]
        assert ("tiny-rerank@http://10.1.1.9:8000", "UNHEALTHY") in [(each["id"], each["status"]) for each in shown]

    def test_image_models_are_instances_of_both_image_services(self, client):
        generating, editing = (data_of(client.get(f"{INSTANCE}/type/{name}")) for name in ("imgGen", "imgEdit"))
        assert generating == editing
        assert len(generating) == 1
        assert error_code(client.put(f"{TYPE}/services/imgEdit", json={"circuitBreaker": {}}))[0] == 400

    def test_breaker_of_an_instance_completes_that_of_its_service(self, client):
        client.put(f"{TYPE}/services/embedding", json={"circuitBreaker": {"failureThreshold": 2}})
        client.put(f"{INSTANCE}/embedding/{EMBEDDING}/circuit-breaker", json={"recoveryTimeout": 5000})
        found = {each["id"]: each for each in client.get("/api/monitoring/circuit-breaker").get_json()}[EMBEDDING]
        assert (found["failureThreshold"], found["successThreshold"], found["timeout"]) == (2, 2, 5000)

    def test_forced_breaker_and_drain_survive_a_recovery(self, client):
        instance = next(
            each for each in client.application.extensions["trident"].router.instances() if each.id == EMBEDDING
        )
        client.post(f"/api/monitoring/circuit-breaker/force-open?instanceId={EMBEDDING}")
        instance.went_down("test")
        instance.responded()
        assert instance.breaker.state == "open"

    def test_failed_unload_leaves_the_model_in_use(self, client, triton, monkeypatch):
        embed(client).close()

        def fail(*_):
            raise DeadlineExceeded("busy")

        monkeypatch.setattr("frontend.triton.reload._END_SECONDS", 0)
        triton.unload = fail
        assert client.post("/api/models/unload", json={"model": "tiny-embedding"}).status_code == 504
        assert embed(client).status_code == 200

    def test_instances_of_the_own_triton_cannot_be_removed_alone(self, client):
        response = client.delete(f"{INSTANCE}/del/embedding?modelName=tiny-embedding&baseUrl={URL}")
        assert error_code(response) == (409, "CONFLICT")

    def test_limit_of_an_instance(self, client):
        limit = {"algorithm": "token-bucket", "capacity": 2, "rate": 0.001}
        assert data_of(client.put(f"{INSTANCE}/embedding/{EMBEDDING}/rate-limit", json=limit))
        assert [embed(client).status_code for _ in range(3)] == [200, 200, 429]

    def test_request_goes_to_an_instance_with_room(self, client):
        client.post(f"{INSTANCE}/add/embedding", json={"name": "tiny-embedding", "baseUrl": "http://10.1.1.1:8000"})
        limit = {"capacity": 1, "rate": 0.001}
        client.put(f"{INSTANCE}/embedding/{EMBEDDING}/rate-limit", json=limit)
        assert [embed(client).status_code for _ in range(6)] == [200] * 6
        client.put(f"{INSTANCE}/embedding/tiny-embedding@http://10.1.1.1:8000/rate-limit", json=limit)
        assert [embed(client).status_code for _ in range(2)] == [200, 429]

    def test_refusal_of_the_instances_costs_nothing_elsewhere(self, client):
        """In JAiRouter, an outer limit that refuses has already consumed the inner ones."""
        client.put(f"{INSTANCE}/embedding/{EMBEDDING}/rate-limit", json={"capacity": 1, "rate": 0.001})
        client.put("/api/config/rate-limits", json={"rateLimit": {"requestsPerDay": 10}})
        for _ in range(5):
            embed(client).close()
        (row,) = client.get("/api/monitoring/rate-limit").get_json()["globalLimit"]
        assert row["remainingCapacity"] == 9

    def test_breaker_of_an_instance_can_be_set_opened_and_reset(self, client):
        path = f"{INSTANCE}/embedding/{EMBEDDING}/circuit-breaker"
        assert data_of(client.put(path, json={"failureThreshold": 9}))["circuitBreaker"]["failureThreshold"] == 9
        assert client.post(f"/api/monitoring/circuit-breaker/force-open?instanceId={EMBEDDING}").status_code == 200
        response = embed(client)
        assert (response.status_code, response.get_json()["error"]["type"]) == (503, "circuit_breaker_open")
        assert data_of(client.post(f"{path}/reset"))
        assert embed(client).status_code == 200

    def test_drain_and_resume(self, client):
        assert data_of(client.post(f"{INSTANCE}/drain", json={"instanceId": EMBEDDING}))
        assert embed(client).status_code == 503
        assert data_of(client.post(f"{INSTANCE}/resume", json={"instanceId": EMBEDDING}))
        assert embed(client).status_code == 200
        assert error_code(client.post(f"{INSTANCE}/drain", json={"instanceId": "x"})) == (404, "INSTANCE_NOT_FOUND")

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"name": "tiny-embedding", "baseUrl": "http://10.1.1.1:8000"}, "name"),  # does not serve chat
            ({"name": "unknown", "baseUrl": "http://10.1.1.1:8000"}, "name"),
            ({"name": "tiny-chat", "baseUrl": "http://user:password@10.1.1.1"}, None),
            ({"name": "tiny-chat", "baseUrl": "ftp://10.1.1.1"}, None),
            ({"name": "tiny-chat"}, "baseUrl"),
            (OTHER | {"weight": 0}, "weight"),
            (OTHER | {"colour": 1}, "colour"),
        ],
    )
    def test_invalid_instances_are_rejected(self, client, body, param):
        response = client.post(f"{INSTANCE}/add/chat", json=body)
        assert error_code(response)[0] == 400
        if param:
            assert response.get_json()["data"] == {"param": param}
        assert "password" not in response.get_data(as_text=True).replace("a user name or password", "")
        assert data_of(client.get(f"{VERSION}/current")) == 0

    def test_triton_that_does_not_respond_is_rejected_unless_forced(self, client, triton):
        triton.down = Unavailable("no route")
        assert error_code(client.post(f"{INSTANCE}/add/chat", json=OTHER)) == (400, "INVALID_PARAMETER")
        assert client.post(f"{INSTANCE}/add/chat?force=true", json=OTHER).status_code == 201

    def test_unknown_fields_of_updates_are_named(self, client):
        body = {"instanceId": EMBEDDING, "instance": {"wieght": 4}}
        response = client.put(f"{INSTANCE}/update/embedding", json=body)
        assert (response.status_code, response.get_json()["data"]) == (400, {"param": "instance.wieght"})


class TestVersions:
    def change(self, client, strategy, **options):
        return client.put("/api/loadbalancer/config/chat", json={"type": strategy}, **options)

    def test_each_change_makes_a_version(self, client):
        assert data_of(client.get(VERSION)) == []
        for strategy in ("random", "round-robin"):
            self.change(client, strategy)
        assert data_of(client.get(VERSION)) == [1, 2]
        assert data_of(client.get(f"{VERSION}/current")) == 2
        stored = data_of(client.get(f"{VERSION}/1"))
        assert stored["services"]["chat"]["loadBalance"] == {"type": "random"}
        assert data_of(client.get(f"{VERSION}/0"))["services"] == {}
        info = data_of(client.get(f"{VERSION}/info"))
        assert [(each["version"], each["current"], each["actor"]) for each in info] == [
            (1, False, "local"),
            (2, True, "local"),
        ]

    def test_rollback_really_rolls_back(self, client):
        """In JAiRouter, the next change after a rollback starts from the newest version, and brings it back."""
        self.change(client, "random")
        self.change(client, "round-robin")
        assert data_of(client.post(f"{VERSION}/rollback/1")) == {"version": 3}
        assert data_of(client.get(f"{VERSION}/current")) == 3
        assert data_of(client.get("/api/loadbalancer/config/chat"))["type"] == "random"
        client.put("/api/loadbalancer/config/embedding", json={"type": "ip-hash"})
        current = data_of(client.get(f"{VERSION}/4"))["services"]
        assert current["chat"]["loadBalance"]["type"] == "random"
        assert current["embedding"]["loadBalance"]["type"] == "ip-hash"

    def test_compare(self, client):
        self.change(client, "random")
        self.change(client, "round-robin")
        expected = [{"path": "services.chat.loadBalance.type", "old": "random", "new": "round-robin"}]
        assert data_of(client.get(f"{VERSION}/compare/1/2"))["changes"] == expected
        assert data_of(client.get(f"{VERSION}/compare/2"))["changes"] == expected
        assert data_of(client.get(f"{VERSION}/compare/2/2"))["changes"] == []

    def test_reset_restores_the_settings(self, make_client):
        client = make_client(load_balance={"chat": "random"})
        self.change(client, "round-robin")
        assert data_of(client.post(f"{TYPE}/reset")) == {"version": 2}
        assert data_of(client.get("/api/loadbalancer/config/chat"))["type"] == "random"

    def test_delete(self, client):
        self.change(client, "random")
        self.change(client, "round-robin")
        assert error_code(client.delete(f"{VERSION}/2"))[0] == 400
        assert error_code(client.delete(f"{VERSION}/0"))[0] == 400
        assert error_code(client.delete(f"{VERSION}/9")) == (404, "CONFIG_NOT_FOUND")
        assert data_of(client.delete(f"{VERSION}/1")) is None
        assert data_of(client.get(VERSION)) == [2]

    @pytest.mark.parametrize("action", ["apply", "rollback"])
    def test_unknown_version(self, client, action):
        assert error_code(client.post(f"{VERSION}/{action}/7"))[0] == 400
        assert error_code(client.get(f"{VERSION}/7")) == (404, "CONFIG_NOT_FOUND")

    @pytest.mark.parametrize("how", ["header", "query"])
    def test_writer_that_has_not_seen_the_current_version_gets_409(self, client, how):
        self.change(client, "random")
        options = {"headers": {"If-Match": '"0"'}} if how == "header" else {"query_string": {"expectedVersion": "0"}}
        assert error_code(self.change(client, "round-robin", **options)) == (409, "VERSION_CONFLICT")
        options = {"headers": {"If-Match": "1"}} if how == "header" else {"query_string": {"expectedVersion": "1"}}
        assert self.change(client, "round-robin", **options).status_code == 200
        assert error_code(self.change(client, "random", query_string={"expectedVersion": "x"}))[0] == 400

    def test_of_two_writers_at_once_one_gets_409(self, client):
        app, results = client.application, []
        barrier = threading.Barrier(2)

        def write(strategy):
            barrier.wait()
            results.append(self.change(app.test_client(), strategy, headers={"If-Match": "0"}).status_code)

        threads = [threading.Thread(target=write, args=(name,)) for name in ("random", "round-robin")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [200, 409]
        assert data_of(client.get(VERSION)) == [1]

    def test_other_processes_follow(self, client, make_client):
        other = make_client()
        self.change(client, "random")
        gateway = other.application.extensions["trident"].gateway
        gateway._check()
        assert gateway.version == 1
        assert data_of(other.get("/api/loadbalancer/config/chat"))["type"] == "random"
        assert data_of(make_client().get(f"{VERSION}/current")) == 1

    def test_commands_reach_other_processes_once(self, client, make_client):
        client.post(f"{INSTANCE}/drain", json={"instanceId": EMBEDDING})
        later = make_client()  # started after the command
        assert embed(later).status_code == 200
        client.post(f"{INSTANCE}/drain", json={"instanceId": EMBEDDING})
        later.application.extensions["trident"].gateway._check()
        assert embed(later).status_code == 503

    def test_audit_log_says_who_changed_what(self, client):
        _, admin = create_key(client, keyId="root", role="admin")
        self.change(client, "random", headers=admin)
        client.post(f"{VERSION}/apply/0", headers=admin)
        rows = data_of(client.get("/api/audit", headers=admin))
        assert [(row["actor"], row["action"], row["target"]) for row in rows] == [
            ("root", "version.apply", "version 2"),
            ("root", "strategy.update", "version 1"),
            ("local", "key.create", "root"),
        ]
        assert len(data_of(client.get("/api/audit?limit=1", headers=admin))) == 1
        assert error_code(client.get("/api/audit?limit=0", headers=admin))[0] == 400


class TestNames:
    def test_aliases(self, client):
        assert data_of(client.put("/api/config/aliases", json={"mine": "tiny-embedding", "gpt-4o": ""}))
        assert client.post("/v1/embeddings", json={"model": "mine", "input": "x"}).status_code == 200
        assert client.post("/v1/chat/completions", json=chat(model="gpt-4o")).status_code == 404
        assert error_code(client.put("/api/config/aliases", json={"mine": 1}))[0] == 400

    def test_default_models(self, client, triton):
        assert data_of(client.put("/api/config/default-models", json={"chat": "tiny-chat"}))
        triton.queue_response(last("x"))
        assert client.post("/v1/chat/completions", json=chat(model="chat")).status_code == 200
        assert error_code(client.put("/api/config/default-models", json={"chat": "tiny-embedding"}))[0] == 400
        assert error_code(client.put("/api/config/default-models", json={"chat": "none"})) == (404, "MODEL_NOT_FOUND")


class TestLimits:
    def test_global_client_and_model_limits(self, client):
        limits = {"rateLimit": {"requestsPerDay": 50}, "clientRateLimit": {"requestsPerMinute": 2}}
        limits |= {"modelRateLimits": {"org/tiny-rerank": {"parallelRequests": 3}}}
        assert data_of(client.put("/api/config/rate-limits", json=limits))["rateLimit"]["requestsPerDay"] == 50
        statuses = [embed(client).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert embed(client, environ_base={"REMOTE_ADDR": "203.0.113.1"}).status_code == 200
        status = client.get("/api/rate-limiter/status").get_json()
        assert (status["enabled"], status["backend"]) == (True, "memory")
        assert {row["scope"] for row in status["limits"]} == {"global", "model"}
        assert client.get("/api/rate-limiter/summary").get_json()["totalLimits"] == 2
        assert data_of(client.put("/api/config/rate-limits", json={"clientRateLimit": None}))["clientRateLimit"] is None
        assert embed(client).status_code == 200

    def test_changed_limits_keep_what_was_used(self, client):
        """In JAiRouter, a changed configuration forgets what was used."""
        path = f"{TYPE}/services/embedding"
        client.put(path, json={"rateLimit": {"requestsPerDay": 2}})
        assert [embed(client).status_code for _ in range(2)] == [200, 200]
        client.put(path, json={"rateLimit": {"requestsPerDay": 3}})
        assert [embed(client).status_code for _ in range(2)] == [200, 429]

    def test_limits_of_the_settings(self, make_client):
        client = make_client(rate_limits={"services": {"embedding": {"requests_per_minute": 1}}})
        assert [embed(client).status_code for _ in range(2)] == [200, 429]

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"globl": {}}, "unknown key 'globl'"),
            ({"global": {"rate": 0}}, "greater than 0"),
            ({"services": {"x": {}}}, "'x' is not one of"),
        ],
    )
    def test_invalid_limits_of_the_settings(self, make_client, limits, message):
        with pytest.raises(ValueError, match=message):
            make_client(rate_limits=limits)


class TestMonitoring:
    def test_documented_paths(self, client):
        embed(client).close()
        instances = client.get("/api/monitoring/instances").get_json()["services"]["embedding"]["instances"]
        assert (instances[0]["id"], instances[0]["status"], instances[0]["circuitBreakerState"]) == (
            EMBEDDING,
            "HEALTHY",
            "CLOSED",
        )
        balancer = client.get("/api/monitoring/load-balancer").get_json()["services"]["embedding"]
        assert balancer["distribution"][EMBEDDING]["percentage"] == 100
        for name in ("config", "config/snapshot", "health", "overview", "errors/stats", "rate-limit"):
            assert client.get(f"/api/monitoring/{name}").status_code == 200
        stats = client.get(f"/api/monitoring/circuit-breaker/stats?instanceId={EMBEDDING}").get_json()
        assert stats["state"] == "CLOSED"
        assert client.get("/api/monitoring/circuit-breaker/stats?instanceId=x").status_code == 404

    def test_errors_have_no_prompts(self, client):
        secret = "SECRETPROMPT"
        client.post("/v1/embeddings", json={"model": "tiny-embedding", "input": {"a": secret}}).close()
        client.post("/v1/embeddings", json={"model": secret, "input": secret}).close()
        client.application.extensions["trident"].gateway.usage.flush()
        errors = client.get("/api/monitoring/errors").get_json()["errors"]
        assert [(error["status"], error["service"]) for error in errors] == [(404, "embedding"), (400, "embedding")]
        assert errors[0]["error"] == "model_not_found: model"
        assert secret not in str(errors)
        assert client.get("/api/monitoring/errors?limit=x").status_code == 400

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/api/audit?limit=0000000010009999", 400),
            ("GET", "/api/audit?before=00000000000199999999999999999999", 400),
            ("GET", "/api/monitoring/errors?limit=0000000019999999999999999999", 400),
            ("DELETE", f"{VERSION}/99999999999999999999999", 404),
            ("GET", f"{VERSION}/99999999999999999999999", 404),
        ],
    )
    def test_huge_numbers(self, client, method, path, status):
        client.put("/api/loadbalancer/config/chat", json={"type": "random"})
        assert client.open(path, method=method).status_code == status

    @pytest.mark.parametrize("levels", [70, 300, 5000])
    def test_deep_bodies_are_rejected(self, client, levels):
        text = '{"fallback": ' + '{"a": ' * levels + "1" + "}" * levels + "}"
        response = client.put(f"{TYPE}/services/tts", data=text, headers={"Content-Type": "application/json"})
        assert response.status_code == 400
        assert client.get(TYPE).status_code == 200

    def test_configuration_has_the_version_as_etag(self, client):
        client.put("/api/loadbalancer/config/chat", json={"type": "random"})
        assert client.get(TYPE).headers["ETag"] == '"1"'
        assert client.get(f"{TYPE}/services/chat").headers["ETag"] == '"1"'

    def test_operations_without_a_change_are_in_the_audit_log(self, client):
        client.post("/api/models/load", json={"model": "tiny-chat"})
        assert data_of(client.get("/api/audit"))[0]["action"] == "model.load"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/monitoring/errors/reset"),
            ("PATCH", "/api/config/merge"),
            ("GET", "/api/dashboard"),
            ("GET", "/api/health-status/stream"),
            ("GET", "/api/config/circuit-breaker/history"),
            ("POST", "/api/config/merge/scan"),
            ("POST", "/api/auth/jwt/login"),
            ("POST", "/api/monitoring/degradation/level"),
            ("POST", "/api/monitoring/cache/clear"),
            ("PUT", "/api/monitoring/config/enabled"),
        ],
    )
    def test_paths_without_meaning_get_501(self, client, method, path):
        assert error_code(client.open(path, method=method)) == (501, "NOT_SUPPORTED")

    def test_failures_never_have_status_200(self, client):
        """In JAiRouter, failures of management get status 200."""
        assert error_code(client.get("/api/nothing")) == (404, "NOT_FOUND")
        assert error_code(client.post("/api/models")) == (405, "METHOD_NOT_ALLOWED")


class TestModels:
    def test_list_and_stats(self, client):
        models = data_of(client.get("/api/models"))["data"]
        assert {model["service_type"] for model in models} >= {"chat", "embedding", "rerank", "tts", "stt", "imgGen"}
        stats = data_of(client.get("/api/models/stats"))
        assert (stats["totalInstances"], stats["totalModels"]) == (8, 8)


class TestUsage:
    @pytest.fixture
    def used(self, client, triton):
        _, admin = create_key(client, keyId="root", role="admin")
        _, user = create_key(client, admin, keyId="alice")
        for _ in range(3):
            embed(client, user).close()
        client.post("/v1/embeddings", json={"model": "tiny-embedding", "input": 5}, headers=user).close()
        triton.queue_response(last("x", prompt=7, completion=3))
        client.post("/v1/chat/completions", json=chat(), headers=user).close()
        gateway = client.application.extensions["trident"].gateway
        gateway.usage.flush()
        gateway.usage.flush()
        return admin

    def test_usage_by_key_and_model(self, client, used):
        rows = data_of(client.get("/api/usage", headers=used))["rows"]
        found = [(row["keyId"], row["model"], row["requests"], row["inputTokens"], row["outputTokens"]) for row in rows]
        assert found == [("alice", "org/tiny-chat", 1, 7, 3), ("alice", "org/tiny-embedding", 3, 6, 0)]

    def test_audio_and_images_are_counted(self, client, triton):
        triton.queue_response(
            {"image_output": b"a", "index": 0, "partial": 0},
            {"image_output": b"a", "index": 0},
            {"image_output": b"b", "index": 1, "num_input_tokens": 4},
        )
        body = {"model": "tiny-image_generation", "prompt": "cat", "n": 2, "response_format": "b64_json"}
        assert client.post("/v1/images/generations", json=body).status_code == 200
        triton.queue_response({"text_output": "hi", "segments": "[]", "language": "en", "duration": 2.5})
        form = {"model": "tiny-transcription", "file": (io.BytesIO(b"RIFF"), "a.wav")}
        client.post("/v1/audio/transcriptions", data=form).close()
        gateway = client.application.extensions["trident"].gateway
        gateway.usage.flush()
        rows = {row["service"]: row for row in data_of(client.get("/api/usage"))["rows"]}
        assert rows["stt"]["audioSeconds"] == 2.5

    def test_groups_and_csv(self, client, used):
        rows = data_of(client.get("/api/usage?groupBy=key", headers=used))["rows"]
        assert [(row["keyId"], row["requests"], row["inputTokens"]) for row in rows] == [("alice", 4, 13)]
        text = client.get("/api/usage?format=csv&groupBy=model", headers=used).get_data(as_text=True)
        assert text.splitlines()[1] == "org/tiny-chat,1,0,7,3,0.0,0"
        assert data_of(client.get("/api/usage?keyId=bob", headers=used))["rows"] == []

    @pytest.mark.parametrize(
        "query", ["from=yesterday", "from=2026-13-01", "from=2030-01-01&to=2029-01-01", "groupBy=x", "format=xml"]
    )
    def test_invalid_queries(self, client, used, query):
        assert error_code(client.get(f"/api/usage?{query}", headers=used))[0] == 400

    def test_openai_format(self, client, used):
        path = "/v1/organization/usage/completions"
        body = client.get(f"{path}?start_time=1700000000", headers=used).get_json()
        assert body["object"] == "page"
        body = client.get(f"{path}?start_time={int(time.time())}&group_by=model", headers=used).get_json()
        (bucket,) = body["data"]
        assert [(row["model"], row["input_tokens"]) for row in bucket["results"]] == [("org/tiny-chat", 7)]
        body = client.get(f"{path}?start_time={int(time.time()) - 9 * 86_400}&limit=7", headers=used).get_json()
        assert (len(body["data"]), body["has_more"]) == (7, True)
        body = client.get(f"{path}?start_time=0&page={body['next_page']}", headers=used).get_json()
        assert (len(body["data"]), body["has_more"], body["next_page"]) == (3, False, None)
        assert client.get(path, headers=used).status_code == 400
