"""The examples for proxies and systemd: nginx with TLS in front of Trident, and the checks of the other programs."""

import os
import shutil
import socket
import subprocess
import time

import pytest
import requests
import urllib3

from contract.paths import CHECKOUT
from tests.support.debian import unpacked
from tests.support.live import MODEL, user, wait_until
from tests.support.stack import free_ports, running_stack

EXAMPLES = CHECKOUT / "examples" / "deploy"
HOST = "ai.example.com"


@pytest.fixture(scope="module")
def proxy(stack, tmp_path_factory):
    """Run nginx with the example in front of Trident, and return a function that sends requests through it."""
    flags = ["--public-url", f"https://{HOST}", "--trusted-proxies", "127.0.0.1"]
    folder, (port,) = tmp_path_factory.mktemp("nginx"), free_ports(1)
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"]
    certificate = folder / "fullchain.pem"
    key += ["-addext", f"subjectAltName=DNS:{HOST}", "-keyout", folder / "privkey.pem", "-out", certificate]
    subprocess.run(key, check=True, capture_output=True)
    with running_stack([MODEL], *flags, triton_of=stack) as settings:
        site = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8")
        site = site.replace("127.0.0.1:10100", f"127.0.0.1:{settings.port}").replace("listen 443", f"listen {port}")
        site = site.replace(f"/etc/letsencrypt/live/{HOST}", str(folder))
        paths = "".join(
            f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = (
            f"daemon off;\nworker_processes 1;\nuser root;\npid {folder}/pid;\nerror_log {folder}/log;\nevents {{}}\n"
        )
        config += f"http {{\naccess_log off;\n{paths}{site}}}\n"
        if os.geteuid():
            config = config.replace("user root;\n", "")
        (folder / "nginx.conf").write_text(config, encoding="utf-8")
        command = [
            _program("nginx", "sbin", "nginx", "nginx-common"),
            "-c",
            folder / "nginx.conf",
            "-e",
            folder / "log",
        ]
        process = subprocess.Popen([*command, "-p", folder])
        try:
            wait_until(lambda: _listens(port), 10, "nginx")
            yield _client(port, certificate)
        finally:
            process.terminate()
            process.wait(10)


def _program(name, folder, *packages):
    found = shutil.which(name)
    return found or str(unpacked(name, *packages) / "usr" / folder / name)


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _client(port, certificate):
    pool = urllib3.HTTPSConnectionPool(
        "127.0.0.1", port, ca_certs=str(certificate), server_hostname=HOST, assert_hostname=HOST, retries=False
    )

    def send(method, path, body=None, headers=None, **options):
        options |= {"json": body} if body else {}
        return pool.request(method, path, headers={"Host": HOST} | (headers or {}), timeout=30, **options)

    return send


def test_chat_is_encrypted_and_streamed(proxy):
    body = {"model": MODEL, "messages": user("Count to 20."), "max_tokens": 40, "stream": True, "ignore_eos": True}
    response = proxy("POST", "/v1/chat/completions", body, preload_content=False)
    arrivals = [time.monotonic() for chunk in response.stream(decode_content=True) if b"data: " in chunk]
    assert response.status == 200
    assert len(arrivals) >= 10  # not in one piece
    assert arrivals[-1] - arrivals[0] > 0.1


CLOSED = ["/api/auth/api-keys", "/api", "/actuator", "/actuator/env", "/metrics", "/v1/organization/usage/completions"]
CLOSED += [f"{prefix}/shutdown{slash}" for prefix in ("", "/v1") for slash in ("", "/")]


@pytest.mark.parametrize("path", CLOSED)
def test_management_is_closed(proxy, path):
    for method in ("GET", "POST"):
        response = proxy(method, path)
        assert (response.status, b"nginx" in response.data) == (404, True)


def test_large_uploads_reach_trident_and_larger_ones_do_not(proxy):
    form = {"file": ("noise.wav", b"not audio" * 10_000_000), "model": MODEL}  # 90 MB
    response = proxy("POST", "/v1/audio/transcriptions", fields=form)
    assert (response.status, response.json()["error"]["type"]) == (400, "invalid_request_error")
    response = proxy("POST", "/v1/audio/transcriptions", headers={"Content-Length": "120000000"})
    assert (response.status, b"nginx" in response.data) == (413, True)


def test_caddyfile_is_valid():
    program = _program("caddy", "bin", "caddy")
    command = [program, "validate", "--adapter", "caddyfile", "--config", EXAMPLES / "Caddyfile"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    adapted = subprocess.run([program, "adapt", "--config", EXAMPLES / "Caddyfile"], capture_output=True, check=True)
    assert b"127.0.0.1:10100" in adapted.stdout


def test_service_is_valid(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("requires systemd-analyze")
    text = (EXAMPLES / "trident.service").read_text(encoding="utf-8")
    # Only these two differ: the checkout, and the user, who need not exist here.
    text = text.replace("/opt/trident", str(CHECKOUT)).replace("User=trident\n", "")
    (tmp_path / "trident.service").write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", tmp_path / "trident.service"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    problems = [line for line in result.stderr.splitlines() if "trident.service" in line]
    assert not problems


def test_trident_believes_the_proxy_only(stack):
    """Without --trusted-proxies, a forwarded address is not believed, and management stays closed."""
    headers = {"X-Forwarded-For": "203.0.113.9"}
    response = requests.get(f"http://127.0.0.1:{stack.port}/api/auth/api-keys", headers=headers, timeout=10)
    assert response.status_code == 403
