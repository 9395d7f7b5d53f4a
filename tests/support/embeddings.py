"""Checks of embedding models under load, for the live and the heavy tests."""

import socket
import time
import urllib.request
from collections.abc import Callable

import orjson

from frontend.settings import Settings
from tests.support.live import wait_until

_ROWS = 2000
# Health checks count as rows too.
_MAX_PROBES = 4


def send_embedding_request(settings: Settings, body: dict[str, object]) -> socket.socket:
    """Send a request to /v1/embeddings over a new connection, and return the connection without reading from it."""
    content = orjson.dumps(body)
    connection = socket.create_connection(("127.0.0.1", settings.port))
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def check_large_request_yields_to_others_and_stops_on_disconnect(
    settings: Settings, model: str, embed_short_text: Callable[[], object]
) -> None:
    """Check that a request with 2,000 texts lets a short request overtake, and stops when its client disconnects."""
    before = _computed_rows(settings, model)
    connection = send_embedding_request(settings, {"model": model, "input": ["dog " * 250] * _ROWS, "truncate": True})
    wait_until(lambda: _computed_rows(settings, model) > before, 30, "the large request")
    embed_short_text()
    assert _computed_rows(settings, model) - before < _ROWS, "the short request waited for the large one"
    connection.close()
    rows = [0.0, _computed_rows(settings, model)]
    while rows[-1] - rows[-2] > _MAX_PROBES:  # the rows that Triton has already started are still computed
        time.sleep(5)
        rows.append(_computed_rows(settings, model))
    assert rows[-1] - before < _ROWS, "the large request was not stopped"


def check_full_queue_rejects_requests_and_loses_none(settings: Settings, model: str) -> None:
    """Send 500 requests at once. Check that at least 256 succeed, and that the others get a 503.

    At least one request must get a 503.
    """
    body: dict[str, object] = {"model": model, "input": "dog " * 250}
    connections = [send_embedding_request(settings, body) for _ in range(500)]
    responses = []
    for connection in connections:
        with connection, connection.makefile("rb") as stream:
            responses.append(stream.read())
    rejected = [response for response in responses if response.startswith(b"HTTP/1.1 503")]
    assert {int(response.split(b" ", 2)[1]) for response in responses} == {200, 503}
    assert all(b"overloaded_error" in response and b"Retry-After" in response for response in rejected)
    assert len(responses) - len(rejected) >= 256


def _computed_rows(settings: Settings, model: str) -> float:
    """Return how many rows (one for each text) Triton has computed with a model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.triton_metrics_port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("nv_inference_count{") and f'model="{model}"' in line
    )
