"""Tests of URLs in requests: inline data, files in allowed folders, and files on public or allowed web servers."""

import base64
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gevent.lock
import pytest
import urllib3

from frontend.errors import InvalidRequest, Overloaded, PayloadTooLarge
from frontend.media import remote
from frontend.media.remote import is_public
from frontend.media.sources import read_media
from frontend.settings import Settings


def read(url, **settings):
    return read_media(url, "here", Settings(**settings))


def rejected(url, **settings):
    with pytest.raises(InvalidRequest) as caught:
        read(url, **settings)
    assert caught.value.param == "here"
    return caught.value.code


class TestData:
    @pytest.mark.parametrize(
        "url", ["data:audio/wav;base64,aGVsbG8=", "base64://aGVsbG8=", "data:,hello", "DATA:,hello"]
    )
    def test_data_is_decoded(self, url):
        assert read(url) == b"hello"

    @pytest.mark.parametrize(
        "url", ["data:a/b;base64,aGVsbG8%3D", "base64://aGVs\nbG8=\n", "base64://aGVsbG8", "data:;BASE64,aGVsbG8="]
    )
    def test_common_variants_of_base64_are_accepted(self, url):
        assert read(url) == b"hello"

    @pytest.mark.parametrize("width", [1, 64, 76, 100, 128, 1000])
    @pytest.mark.parametrize("space", ["\n", "\r\n", " ", "\t", "\f", "\u00a0"])
    @pytest.mark.parametrize("scheme", ["data:image/png;base64,", "base64://"])
    def test_white_space_anywhere_in_base64_is_accepted(self, width, space, scheme):
        content = bytes(range(256)) * 4 + b"x"
        encoded = base64.b64encode(content).decode()
        lines = space.join(encoded[i : i + width] for i in range(0, len(encoded), width))
        assert read(f"{scheme}{lines}{space}") == content
        assert read(f"{scheme}{encoded.rstrip('=')}{space}") == content

    @pytest.mark.parametrize("url", ["data:audio/wav;base64,a", "base64://%%%", "base64://é"])
    def test_invalid_base64_is_rejected(self, url):
        assert rejected(url) == "invalid_base64"

    @pytest.mark.parametrize("url", ["", "hello", "ftp://x/y", "data:x", "/etc/passwd", "javascript:1"])
    def test_malformed_urls_and_unsupported_schemes_are_rejected(self, url):
        assert rejected(url) == "invalid_url"

    def test_empty_data_is_rejected(self):
        assert rejected("data:,") == "empty_file"

    def test_data_over_the_limit_is_rejected(self):
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
        (tmp_path / "in" / "circle").symlink_to(tmp_path / "in" / "circle")
        return tmp_path / "in"

    @pytest.mark.parametrize("name", ["a%20b.wav", "../in/a%20b.wav", "inside"])
    def test_a_file_in_an_allowed_folder_is_read(self, folder, name):
        assert read(f"file://{folder}/{name}", allow_files=(folder,)) == b"sound"

    @pytest.mark.parametrize(
        "name", ["../secret", "out", "pipe", "circle", "", "missing", "%2e%2e/secret", "a%00b", "x/../../secret"]
    )
    def test_disallowed_or_missing_files_are_rejected_and_no_descriptor_stays_open(self, folder, name):
        before = len(os.listdir("/proc/self/fd"))
        assert rejected(f"file://{folder}/{name}", allow_files=(folder,)) == "file_not_allowed"
        assert len(os.listdir("/proc/self/fd")) == before

    def test_the_path_of_the_opened_file_is_checked_again_and_a_malformed_url_is_rejected(self, folder, monkeypatch):
        monkeypatch.setattr(Path, "resolve", lambda path: path)
        assert rejected(f"file://{folder}/../secret", allow_files=(folder,)) == "file_not_allowed"
        assert rejected("file://[x") == "file_not_allowed"

    def test_files_are_rejected_by_default_and_from_other_hosts(self, folder):
        assert rejected(f"file://{folder}/inside") == "file_not_allowed"
        assert rejected(f"file://elsewhere{folder}/inside", allow_files=(folder,)) == "file_not_allowed"

    def test_a_file_over_the_limit_is_rejected(self, folder):
        with pytest.raises(PayloadTooLarge):
            read(f"file://{folder}/inside", allow_files=(folder,), max_upload_bytes=4)


class Handler(BaseHTTPRequestHandler):
    """Responds with the request's path as the body, except for these paths:

    /to/LOCATION redirects to LOCATION, /large returns 2,000 bytes, /missing returns the status 404, and /stall waits
    one second before it responds.
    """

    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            location = self.path.removeprefix("/to/")
            if location.startswith("raw"):
                location = "/café.png?é".encode().decode("latin-1")  # bytes of UTF-8, as some servers send them
            self.send_header("Location", location)
            self.end_headers()
            return
        if self.path == "/stall":
            time.sleep(1)
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(b"x" * 2000 if self.path == "/large" else self.path.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def names(monkeypatch):
    """Return a dict of host name → addresses, to which tests add entries.

    The entries take precedence over the system's name lookup.
    """
    addresses, real = {}, socket.getaddrinfo

    def look_up(host, port, *arguments, **options):
        if host not in addresses:
            return real(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return addresses


ALLOWED = {"allow_hosts": ("127.0.0.1",)}


class TestHTTP:
    def test_a_url_is_fetched(self, server):
        assert read(f"{server}/a.wav?x=1", **ALLOWED) == b"/a.wav?x=1"

    @pytest.mark.parametrize(
        ("path", "sent"),
        [
            ("/café.png", "/caf%C3%A9.png"),
            ("/图.png?名=é&a=1", "/%E5%9B%BE.png?%E5%90%8D=%C3%A9&a=1"),
            ("/caf%C3%A9.png", "/caf%C3%A9.png"),
            ("/a b.png?x=1|2", "/a%20b.png?x=1%7C2"),
            ("/to/raw", "/caf%C3%A9.png?%C3%A9"),
        ],
    )
    def test_characters_that_urls_cannot_have_are_escaped(self, server, path, sent):
        assert read(f"{server}{path}", **ALLOWED).decode() == sent

    def test_redirects_are_followed_up_to_a_limit(self, server):
        assert read(f"{server}/to/{server}/a.wav", **ALLOWED) == b"/a.wav"
        assert rejected(f"{server}/to//to//to//to//to//a", **ALLOWED) == "media_unreachable"

    def test_the_addresses_of_a_host_are_tried_until_one_connects(self, server, names):
        names["box"] = ["127.0.0.9", "127.0.0.1"]
        assert read(f"http://Box:{server.rpartition(':')[2]}/a", allow_hosts=("BOX",)) == b"/a"

    def test_an_international_host_name_is_resolved_as_punycode(self, server, names):
        names["xn--fiq228c.example"] = ["127.0.0.1"]
        address = f"http://中文.example:{server.rpartition(':')[2]}/a"
        assert rejected(address) == "host_not_allowed"
        assert read(address, allow_hosts=("xn--fiq228c.example",)) == b"/a"

    def test_a_stalling_server_times_out(self, server, monkeypatch):
        monkeypatch.setattr(remote, "_SECONDS", 0.5)
        monkeypatch.setattr(remote, "_SOCKET_TIMEOUT", urllib3.Timeout(0.3))
        assert rejected(f"{server}/stall", **ALLOWED) == "media_unreachable"

    def test_too_many_downloads_are_rejected(self, server, monkeypatch):
        monkeypatch.setattr(remote, "_download_slots", gevent.lock.BoundedSemaphore(0))
        with pytest.raises(Overloaded):
            read(f"{server}/a", **ALLOWED)

    def test_redirects_to_another_scheme_a_private_host_or_a_malformed_url_are_rejected(self, server):
        assert rejected(f"{server}/to/file:///etc/passwd", **ALLOWED) == "invalid_url"
        assert rejected(f"{server}/to/http://localhost:1/", **ALLOWED) == "host_not_allowed"
        assert rejected(f"{server}/to/http://[x", **ALLOWED) in ("invalid_url", "media_unreachable")

    def test_private_hosts_are_rejected_by_default(self, server):
        assert rejected(f"{server}/a.wav") == "host_not_allowed"

    def test_a_host_with_one_private_address_among_its_addresses_is_rejected(self, names):
        names["public.example"] = ["93.184.216.34", "10.0.0.1"]
        assert rejected("http://public.example/a.wav") == "host_not_allowed"

    def test_an_error_status_or_a_closed_port_is_reported_as_media_unreachable(self, server):
        assert rejected(f"{server}/missing", **ALLOWED) == "media_unreachable"
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        assert rejected(f"http://127.0.0.1:{port}/", **ALLOWED) == "media_unreachable"

    @pytest.mark.parametrize(
        "url", ["http://" + "a" * 20_000, "http://", "http://x:99999/", "http:///a", "http://[::1", "https://:80"]
    )
    def test_malformed_urls_are_rejected(self, url):
        assert rejected(url) in ("invalid_url", "media_unreachable")

    def test_a_download_over_the_limit_is_rejected(self, server):
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
        ("fec0::1", False),
        ("64:ff9b:1::7f00:1", False),
        ("::7f00:1", False),
    ],
)
def test_is_public(address, public):
    assert is_public(address) is public
