"""A server with scripted responses in OpenAI's format, which records the requests that commands send to it."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {
    "chat": "vendor/talker",
    "transcription": "vendor/listener",
    "speech": "vendor/speaker",
    "embedding": "vendor/embedder",
    "rerank": "vendor/ranker",
    "background_removal": "vendor/cutter",
    "image_generation": "vendor/painter",
}
"""The model of each task."""

PNG = b"\x89PNG\r\n\x1a\n fake"


@dataclass
class Request:
    """A request that the server got."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content

    def form(self) -> dict[str, str]:
        """Return the fields of a form, as text."""
        parts = re.findall(
            rb'name="([^"]+)"(?:; filename="[^"]*")?(?:\r\n[^\r\n]+)*\r\n\r\n(.*?)\r\n--', self.body, re.S
        )
        return {name.decode(): value.decode(errors="replace") for name, value in parts}


@dataclass
class FakeApi:
    """The server's URL, the requests, and what it responds to a path: a status and a body, or parts of a stream."""

    url: str
    requests: list[Request] = field(default_factory=list)
    responses: dict[str, Callable[[Request], "tuple[int, bytes] | Iterator[bytes]"]] = field(default_factory=dict)

    def last(self, path: str) -> Request:
        """Return the newest request to a path."""
        return [request for request in self.requests if request.path == path][-1]


def model(task: str) -> dict[str, Any]:
    """Return a model as /v1/models describes it."""
    capabilities = ["vision", "audio"] if task == "chat" else []
    shared = {"object": "model", "created": 0, "owned_by": "vendor", "state": "READY"}
    return {"id": MODELS[task], "task": task, "capabilities": capabilities} | shared


def chunks(*deltas: dict[str, Any], done: bool = True) -> Iterator[bytes]:
    """Yield a streamed chat response with these deltas."""
    for delta in deltas:
        yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(deltas), "total_tokens": 5}})
    if done:
        yield b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"data: {json.dumps(data)}\n\n".encode()


def _chat(request: Request) -> "tuple[int, bytes] | Iterator[bytes]":
    body = request.json()
    if body.get("stream"):
        return chunks({"role": "assistant"}, {"content": "Hello"}, {"content": " there"})
    words = len(json.dumps(body["messages"]).split())
    message = {"role": "assistant", "content": "Hello there"}
    usage = {"prompt_tokens": words, "completion_tokens": 2}
    return 200, json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}).encode()


def _models(request: Request) -> tuple[int, bytes]:
    name = request.path.removeprefix("/v1/models").lstrip("/").replace("%2F", "/")
    if not name:
        return 200, json.dumps({"data": [model(task) for task in MODELS]}).encode()
    for task, identifier in MODELS.items():
        if name in (task, identifier, identifier.partition("/")[2]):
            return 200, json.dumps(model(task)).encode()
    return 404, json.dumps({"error": {"message": f"The model '{name}' does not exist"}}).encode()


def _embeddings(request: Request) -> tuple[int, bytes]:
    rows = [{"embedding": [float(len(text)), 0.5]} for text in request.json()["input"]]
    return 200, json.dumps({"data": rows}).encode()


def _rerank(request: Request) -> tuple[int, bytes]:
    body = request.json()
    documents: Sequence[str] = body["documents"]
    found = [
        {"index": index, "relevance_score": 1 / (index + 2), "document": documents[index], "score": 0}
        for index in reversed(range(len(documents)))
    ]
    found.sort(key=lambda row: -row["relevance_score"])
    return 200, json.dumps({"results": found[: body.get("top_n")]}).encode()


def _speech(request: Request) -> "tuple[int, bytes] | Iterator[bytes]":
    if "messages" in request.json():
        content = [{"type": "audio", "audio_url": {"url": "data:audio/wav;base64,UklGRg=="}}]
        return 200, json.dumps({"choices": [{"message": {"content": content}}]}).encode()
    return iter([b"RIFF", b"audio"])


@contextmanager
def running_fake_api() -> Iterator[FakeApi]:
    """Run the server until the block ends."""
    api = FakeApi("")
    api.responses = {
        "/v1/models": _models,
        "/v1/chat/completions": _chat,
        "/v1/embeddings": _embeddings,
        "/v1/rerank": _rerank,
        "/v1/audio/speech": _speech,
        "/v1/audio/transcriptions": lambda request: (200, f"words of {_file_name(request)}\n".encode()),
        "/v1/images/remove_background": lambda _: (200, PNG),
        "/v1/images/generations": lambda request: (
            200,
            json.dumps({"data": [{"b64_json": "aW1hZ2U="}] * request.json().get("n", 1)}).encode(),
        ),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = Request(
                self.path, {key.lower(): value for key, value in self.headers.items()}, self.rfile.read(length)
            )
            api.requests.append(request)
            path = "/v1/models" if self.path.startswith("/v1/models") else self.path
            response = api.responses.get(path.partition("?")[0], _unknown)(request)
            self.close_connection = True
            if isinstance(response, tuple):
                status, body = response
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in response:
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = _handle  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def _unknown(_: Request) -> tuple[int, bytes]:
    return 404, b'{"error": {"message": "unknown path"}}'


def _file_name(request: Request) -> str:
    match = re.search(rb'filename="([^"]*)"', request.body)
    return match[1].decode() if match else "?"
