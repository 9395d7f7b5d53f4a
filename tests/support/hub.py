"""A server that speaks the part of the Hugging Face hub's and ModelScope's APIs that downloads need."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUGGING_FACE_TOKEN, MODELSCOPE_TOKEN = "hf_secret", "ms_secret"


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
    slow: float = 0
    """Seconds for which each download pauses after every 64 KiB."""
    url: str = ""
    downloads: list[tuple[str, int]] = field(default_factory=list)
    """The name of each downloaded file, and from which byte on."""


@contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port until the block ends."""

    class Handler(_Handler):
        data = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
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
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.data.status:
            self._error(self.data.status)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", url.path):
            self._model(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path):
            self._file(match[1], match[3], f"Bearer {HUGGING_FACE_TOKEN}", "Authorization")
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", url.path):
            self._file(match[1], match[2], "", "")
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)", url.path):
            self._modelscope(match[1], {"License": "Apache License 2.0"})
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", url.path):
            self._modelscope_files(match[1], query)
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo", url.path):
            self._file(match[1], query["FilePath"], f"m_session_id={MODELSCOPE_TOKEN}", "Cookie")
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
        if revision not in (None, "main", COMMIT):
            self._error(404, "RevisionNotFound")
            return
        siblings = [
            {
                "rfilename": file,
                "size": len(content),
                "lfs": {"sha256": _sha256(content), "size": len(content), "pointerSize": 134},
            }
            for file, content in self.data.repositories[name].items()
        ]
        about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []}
        about |= {"cardData": {"license": "apache-2.0"}, "lastModified": "2025-05-01T10:00:00.000Z"}
        self._json(about | {"gated": "manual" if name in self.data.gated else False})

    def _modelscope_files(self, name: str, query: Mapping[str, str]) -> None:
        if query.get("Revision") not in ("master", "v1"):
            self._error(404)
            return
        files = [
            {"Path": file, "Name": file.rpartition("/")[2], "Size": len(content), "Sha256": _sha256(content)}
            for file, content in self.data.repositories.get(name, {}).items()
        ]
        self._modelscope(
            name, {"Files": [{**file, "Type": "blob"} for file in files] + [{"Path": "d", "Type": "tree"}]}
        )

    def _modelscope(self, name: str, data: object) -> None:
        if name in self.data.repositories:
            self._json({"Code": 200, "Data": data, "Success": True})
        else:
            self._error(404)

    def _file(self, repository: str, name: str, secret: str, header: str) -> None:
        if header and repository in self.data.gated and self.headers.get(header) != secret:
            self._error(403, "GatedRepo")
            return
        if header and self.command == "GET":  # hubs redirect to the servers that have their files
            self.send_response(302)
            self.send_header("Location", f"/cdn/{repository}/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.data.repositories[repository][name]
        digest = _sha256(content)
        if self.data.corrupted:
            content = content[:-1] + bytes([content[-1] ^ 1])
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        end = min(int(found[2]) + 1, len(content)) if found and found[2] else len(content)
        self.send_response(206 if found else 200)
        for field_name, value in {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - start),
            "Content-Range": f"bytes {start}-{end - 1}/{len(content)}",
        }.items():
            self.send_header(field_name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if not (found and found[2]):
            self.data.downloads.append((name, start))
            if self.data.breaks:
                self.data.breaks -= 1
                end, self.close_connection = start + (end - start) // 2, True
        for piece in range(start, end, 1 << 16):
            self.wfile.write(content[piece : min(piece + (1 << 16), end)])
            time.sleep(self.data.slow)

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
