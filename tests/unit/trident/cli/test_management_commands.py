"""The commands `trident keys`, `config` and `instances`: their requests, output and errors."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from frontend.settings import Settings
from tests.unit.frontend.endpoints.management_support import bearer, data_of
from trident.cli import main


class Bridge(BaseHTTPRequestHandler):
    """Passes HTTP requests to the Flask application of the test."""

    client = None

    def _pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        response = self.client.open(self.path, method=self.command, data=body, headers=headers)
        content = response.get_data()
        self.send_response(response.status_code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _pass_on  # noqa: N815

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def url(client, triton):
    Bridge.client = client
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bridge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def run(url):
    def run(*arguments, code=0, key=""):
        environment = {"TRIDENT_URL": url, "TRIDENT_API_KEY": key}
        result = CliRunner().invoke(main, list(arguments), env=environment)
        assert result.exit_code == code, result.output
        return result

    return run


def test_keys(run, client, tmp_path):
    key = run("keys", "create", "--admin", "--id", "boss").stdout.strip()
    assert key.startswith("tr-")
    options = ["--model", "tiny-chat", "--requests-per-minute", "5", "--address", "10.0.0.0/8", "--description", "test"]
    created = json.loads(run("keys", "create", "--id", "a", *options, "--json", key=key).stdout)
    assert (created["models"], created["rateLimitPerMinute"]) == (["tiny-chat"], 5)
    assert run("keys", "list", key=key).stdout.splitlines()[1].split()[:3] == ["a", "user", "enabled"]
    assert "rateLimitPerMinute: 5" in run("keys", "show", "a", key=key).stdout
    assert "changed" in run("keys", "disable", "a", key=key).stdout
    assert not json.loads(run("keys", "show", "a", "--json", key=key).stdout)["enabled"]
    run("keys", "enable", "a", key=key)
    assert run("keys", "rotate", "a", "--overlap", "60", key=key).stdout.strip() != created["keyValue"]
    file = tmp_path / "keys.json"
    file.write_text(run("keys", "export", key=key).stdout, encoding="utf-8")
    assert "deleted" in run("keys", "delete", "a", key=key).stdout
    assert run("keys", "import", str(file), key=key).stdout.splitlines()[1].split()[0] == "a"


def test_configuration(run, client):
    assert run("config", "versions").stdout.startswith("There are no versions")
    assert "There is no earlier version" in run("config", "rollback", code=1).stderr
    for strategy in ("random", "round-robin"):
        data_of(client.put("/api/loadbalancer/config/chat", json={"type": strategy}))
    assert [line.split()[0] for line in run("config", "versions").stdout.splitlines()[1:]] == ["1", "2"]
    assert "services.chat.loadBalance.type" in run("config", "compare", "1", "2").stdout
    assert "Version 3 has the content of version 1" in run("config", "rollback").stdout
    assert json.loads(run("config", "apply", "0", "--json").stdout) == {"version": 4}
    shown = json.loads(run("config", "show", "2").stdout)
    assert shown["services"]["chat"]["loadBalance"]["type"] == "round-robin"
    assert "services" in json.loads(run("config", "show").stdout)


def test_instances(run):
    lines = run("instances", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "SERVICE", "STATE", "WEIGHT", "ACTIVE", "REQUESTS", "FAILED"]
    identifier = "tiny-chat@http://10.1.1.1:8000"
    run("instances", "add", "chat", identifier, "--weight", "2")
    assert json.loads(run("instances", "update", identifier, "--disable", "--json").stdout)["enabled"] is False
    states = {each["id"]: each for each in json.loads(run("instances", "list", "--json").stdout)}
    assert (states[identifier]["weight"], states[identifier]["enabled"]) == (2, False)
    run("instances", "drain", identifier)
    run("instances", "resume", identifier)
    run("instances", "reset-breaker", identifier)
    assert "removed" in run("instances", "remove", identifier).stdout


def test_errors_are_those_of_the_server(run, tmp_path):
    key = run("keys", "create", "--admin").stdout.strip()
    assert "set TRIDENT_API_KEY to an admin key" in run("keys", "list", code=1).stderr
    assert "There is no key 'x'" in run("keys", "show", "x", code=1, key=key).stderr
    assert "is in the past" in run("keys", "create", "--expires", "2020-01-01", code=1, key=key).stderr
    assert "There is no instance 'x'" in run("instances", "drain", "x", code=1, key=key).stderr
    assert run("instances", "update", "x", code=2, key=key)
    assert "invalid characters" in run("keys", "list", code=2, key="tr-ä").stderr
    assert "must be http" in run("keys", "list", "--url", "foo", code=2).stderr
    file = tmp_path / "keys.json"
    for content in (b"5", b'{"keys": 1}', b"\xff"):
        file.write_bytes(content)
        assert str(file) in run("keys", "import", str(file), code=1, key=key).stderr
    assert run("keys", "create", "--admin", "--readonly", code=2)


def test_server_that_does_not_respond():
    result = CliRunner().invoke(main, ["keys", "list", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 does not respond" in result.stderr


def test_first_admin_key_is_created_without_a_server(tmp_path, make_client):
    options = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path), "--json"]
    result = CliRunner().invoke(main, ["keys", "create", "--admin", "--id", "first", *options])
    assert result.exit_code == 0, result.output
    key = json.loads(result.stdout)["keyValue"]
    client = make_client()
    assert client.get("/api/audit").status_code == 401
    (row,) = data_of(client.get("/api/audit", headers=bearer(key)))
    assert (row["actor"], row["target"]) == ("command line", "first")
    assert Settings(data=tmp_path / "data").pepper_path.stat().st_mode & 0o777 == 0o600
    result = CliRunner().invoke(main, ["keys", "create", *options])
    assert result.exit_code == 1
    assert "Trident is not running" in result.stderr
    result = CliRunner().invoke(main, ["keys", "create", "--admin", "--id", "first", *options])
    assert "exists already" in result.stderr
