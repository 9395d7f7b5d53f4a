"""Unknown hosts on loopback are rejected, and pages of allowed origins may use the API."""

import pytest

from frontend.settings import SettingsError
from tests.unit.conftest import chat, last

PAGE = "http://localhost:3000"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.parametrize(
    "host",
    [
        "rebind.evil.example:10100",
        "localhost.evil.example",
        "evil.example.",
        "127.0.0.1.evil.example",
        "a b",
        "evil.example:x",
        "::1:10100",
        ":10100",
        "user@localhost",
    ],
)
def test_unknown_host_is_rejected_on_loopback(client, host):
    for path in ("/v1/models", "/health", "/nope"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == 403
        error = response.get_json()["error"]
        assert (error["type"], error["code"]) == ("permission_error", "unknown_host")
        assert "--trusted-hosts" in error["message"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:10100", "api.localhost", "127.0.0.1:10100", "[::1]:10100", "192.168.1.5", ""]
)
def test_loopback_names_and_addresses_are_accepted(client, host):
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_only_configured_hosts_are_accepted(make_client, address):
    public_url = "https://Public.example.org/trident"
    client = make_client(host=address, trusted_hosts=("Api.Example.org.",), public_url=public_url)
    for host in ("api.example.org", "public.example.org:443", "10.0.0.7:10100"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("address", ["localhost", "LOCALHOST", "127.1", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"])
def test_hosts_are_checked_on_every_loopback_address(make_client, address):
    client = make_client(host=address)
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    own = client.application.extensions["trident"].settings.address
    assert client.get("/v1/models", headers={"Host": own}).status_code == 200


def test_any_host_is_accepted_if_the_server_is_open_to_the_network(make_client):
    client = make_client(host="0.0.0.0")
    assert client.get("/v1/models", headers={"Host": "gpu.example.org"}).status_code == 200
    rebinding = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/shutdown", headers=rebinding).status_code == 403


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("trusted_hosts", "api.example.org:443"),
        ("trusted_hosts", "https://api.example.org"),
        ("allow_origins", "localhost:3000"),
        ("allow_origins", "http://localhost:*"),
        ("allow_origins", "http://localhost/page"),
        ("public_url", "http://[bad"),
    ],
)
def test_values_that_could_never_match_are_rejected(make_client, setting, value):
    with pytest.raises(SettingsError):
        make_client(**{setting: value if setting == "public_url" else (value,)})


def cors(response):
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-")}


def test_no_origin_is_allowed_by_default(client):
    assert cors(client.options("/v1/chat/completions", headers=PREFLIGHT)) == {}
    assert cors(client.get("/v1/models", headers={"Origin": PAGE})) == {}


@pytest.mark.parametrize("allowed", [PAGE, "*"])
def test_preflight_of_an_allowed_origin_is_accepted(make_client, allowed):
    response = make_client(allow_origins=(allowed,)).options("/v1/chat/completions", headers=PREFLIGHT)
    assert response.status_code == 204
    assert cors(response) == {
        "Access-Control-Allow-Origin": allowed,
        "Access-Control-Expose-Headers": "X-Request-Id, Retry-After, Server-Timing",
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "authorization,content-type",
        "Access-Control-Max-Age": "600",
    }


def test_responses_streams_and_errors_have_the_headers(make_client, triton):
    client = make_client(allow_origins=(PAGE, "https://chat.example.org"))
    triton.queue_response(last("Hi"))
    triton.queue_response(last("Hi"))
    responses = [
        client.post("/v1/chat/completions", json=chat(), headers={"Origin": PAGE}),
        client.post("/v1/chat/completions", json=chat(stream=True), headers={"Origin": PAGE}, buffered=True),
        client.post("/v1/chat/completions", json={}, headers={"Origin": PAGE}),
        client.get("/nope", headers={"Origin": PAGE}),
    ]
    assert [response.status_code for response in responses] == [200, 200, 400, 404]
    for response in responses:
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("http://LocalHost:80", "http://localhost"),
        ("https://chat.example.org:443", "https://chat.example.org"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origins_match_as_browsers_write_them(make_client, allowed, origin):
    response = make_client(allow_origins=(allowed,)).get("/v1/models", headers={"Origin": origin})
    assert response.headers["Access-Control-Allow-Origin"] == origin


def test_other_origins_get_no_headers(make_client):
    client = make_client(allow_origins=(PAGE,))
    for origin in ("http://localhost:3001", "https://localhost:3000", "null", ""):
        response = client.get("/v1/models", headers={"Origin": origin})
        assert cors(response) == {}
        assert response.headers["Vary"] == "Origin"


def test_shutdown_is_closed_to_pages_of_other_origins(make_client):
    client = make_client(allow_origins=("*",))
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
    ):
        for path in ("/shutdown", "/v1/shutdown", "/shutdown/"):
            response = client.post(path, headers=headers)
            assert response.status_code == 403
            assert cors(response) == {}
    assert client.post("/shutdown", headers={"Origin": "http://localhost"}).status_code == 200
