"""A server that speaks the part of the Hugging Face hub's API that downloads need."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The repositories, and what goes wrong."""

    repositories: dict[str, Mapping[str, bytes]]
    gated: set[str] = field(default_factory=set)
    corrupted: bool = False
    """Whether the files differ from their published hashes."""
    breaks: int = 0
    """How many downloads end in the middle."""
    status: int = 0
    """The status of all responses, if not 0."""
    url: str = ""
    downloads: list[tuple[str, int]] = field(default_factory=list)
    """The name of each downloaded file, and from which byte on."""


@contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port until the block ends."""

    class Handler(_Handler):
        data = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    data: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self.data.status:
            self._error(self.data.status)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._model(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[3])
        else:
            self._error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass

    def _model(self, name: str, revision: str | None) -> None:
        if name not in self.data.repositories:
            self._error(404, "RepoNotFound")
            return
        if revision not in (None, "main", _COMMIT):
            self._error(404, "RevisionNotFound")
            return
        siblings = [
            {"rfilename": file, "size": len(content), "lfs": {"sha256": _sha256(content), "size": len(content)}}
            for file, content in self.data.repositories[name].items()
        ]
        for sibling in siblings:
            sibling["lfs"]["pointerSize"] = 134
        body = json.dumps({"id": name, "modelId": name, "sha": _COMMIT, "siblings": siblings, "tags": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, repository: str, name: str) -> None:
        if repository in self.data.gated and self.headers.get("Authorization") != "Bearer hf_secret":
            self._error(403, "GatedRepo")
            return
        content = self.data.repositories[repository][name]
        digest = _sha256(content)
        if self.data.corrupted:
            content = content[:-1] + bytes([content[-1] ^ 1])
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        for header, value in {
            "X-Repo-Commit": _COMMIT,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(content) - start),
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
        }.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.data.downloads.append((name, start))
        end = len(content)
        if self.data.breaks:
            self.data.breaks -= 1
            end, self.close_connection = start + (end - start) // 2, True
        self.wfile.write(content[start:end])

    def _error(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
