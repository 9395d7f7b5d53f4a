"""What a request may name: data, files of allowed folders, public addresses."""

import base64
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from frontend.errors import InvalidRequest, PayloadTooLarge
from frontend.media import _is_public, read_media
from frontend.settings import Settings


def read(url, **settings):
    return read_media(url, "here", Settings(**settings))


def refused(url, **settings):
    with pytest.raises(InvalidRequest) as caught:
        read(url, **settings)
    assert caught.value.param == "here"
    return caught.value.code


class TestData:
    @pytest.mark.parametrize(
        "url", ["data:audio/wav;base64,aGVsbG8=", "base64://aGVsbG8=", "data:,hello", "DATA:,hello"]
    )
    def test_is_decoded(self, url):
        assert read(url) == b"hello"

    @pytest.mark.parametrize("url", ["data:audio/wav;base64,a", "base64://%%%", "base64://é"])
    def test_what_is_not_base64(self, url):
        assert refused(url) == "invalid_base64"

    @pytest.mark.parametrize("url", ["", "hello", "ftp://x/y", "data:x", "/etc/passwd", "javascript:1"])
    def test_what_is_no_url(self, url):
        assert refused(url) == "invalid_url"

    def test_nothing(self):
        assert refused("data:,") == "empty_file"

    def test_too_much(self):
        with pytest.raises(PayloadTooLarge):
            read(f"base64://{base64.b64encode(b'x' * 11).decode()}", max_upload_bytes=10)


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a b.wav").write_bytes(b"sound")
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "in" / "out").symlink_to(tmp_path / "secret")
        (tmp_path / "in" / "inside").symlink_to(tmp_path / "in" / "a b.wav")
        os.mkfifo(tmp_path / "in" / "pipe")
        return tmp_path / "in"

    @pytest.mark.parametrize("name", ["a%20b.wav", "../in/a%20b.wav", "inside"])
    def test_below_an_allowed_folder(self, folder, name):
        assert read(f"file://{folder}/{name}", allow_files=(folder,)) == b"sound"

    @pytest.mark.parametrize(
        "name", ["../secret", "out", "pipe", "", "missing", "%2e%2e/secret", "a%00b", "x/../../secret"]
    )
    def test_nothing_else(self, folder, name):
        assert refused(f"file://{folder}/{name}", allow_files=(folder,)) == "file_not_allowed"

    def test_nothing_at_all_unless_allowed(self, folder):
        assert refused(f"file://{folder}/inside") == "file_not_allowed"
        assert refused(f"file://elsewhere{folder}/inside", allow_files=(folder,)) == "file_not_allowed"

    def test_too_large(self, folder):
        with pytest.raises(PayloadTooLarge):
            read(f"file://{folder}/inside", allow_files=(folder,), max_upload_bytes=4)


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(b"x" * 2000 if self.path == "/large" else self.path.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


ALLOWED = {"allow_hosts": ("127.0.0.1",)}


class TestHTTP:
    def test_is_fetched(self, server):
        assert read(f"{server}/a.wav?x=1", **ALLOWED) == b"/a.wav?x=1"

    def test_leads_on(self, server):
        assert read(f"{server}/to/{server}/a.wav", **ALLOWED) == b"/a.wav"
        assert refused(f"{server}/to//to//to//to//to//a", **ALLOWED) == "media_unreachable"

    def test_not_to_another_scheme_or_a_private_host(self, server):
        assert refused(f"{server}/to/file:///etc/passwd", **ALLOWED) == "invalid_url"
        assert refused(f"{server}/to/http://localhost:1/", **ALLOWED) == "host_not_allowed"

    def test_not_private_unless_allowed(self, server):
        assert refused(f"{server}/a.wav") == "host_not_allowed"

    def test_a_name_that_means_a_private_address(self, monkeypatch):
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda *a, **k: [(0, 0, 0, "", ("93.184.216.34", 80)), (0, 0, 0, "", ("10.0.0.1", 80))],
        )
        assert refused("http://public.example/a.wav") == "host_not_allowed"

    def test_what_does_not_answer(self, server):
        assert refused(f"{server}/missing", **ALLOWED) == "media_unreachable"
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = nobody.getsockname()[1]
        assert refused(f"http://127.0.0.1:{port}/", **ALLOWED) == "media_unreachable"

    @pytest.mark.parametrize("url", ["http://", "http://x:99999/", "http:///a", "http://[::1", "https://:80"])
    def test_what_is_no_address(self, url):
        assert refused(url) in ("invalid_url", "media_unreachable")

    def test_too_large(self, server):
        with pytest.raises(PayloadTooLarge):
            read(f"{server}/large", max_upload_bytes=1000, **ALLOWED)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address, public):
    assert _is_public(address) is public
