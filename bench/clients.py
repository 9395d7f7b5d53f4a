"""A lightweight load generator: each client sends its next request when its previous response is complete.

One thread drives all clients over plain keep-alive sockets, because Python's HTTP client would use CPU time that the
server needs.
"""

import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rate:
    """Throughput and latencies of one round of requests."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float


@dataclass
class _Client:
    socket: socket.socket
    sent: float = 0.0
    data: bytearray = field(default_factory=bytearray)
    chunked: bool = False
    missing: int | None = None
    """How many body bytes have not arrived yet; None until the headers are complete, or if the body is chunked."""


def run_clients(
    port: int,
    path: str,
    bodies: list[bytes],
    clients: int,
    kind: str = "application/json",
    timeout: float = 300,
    api_key: str = "",
) -> Rate:
    """Send each body in a POST request with content type `kind` to 127.0.0.1, from `clients` concurrent clients.

    `api_key` is sent if it is not empty.

    Raises AssertionError if an HTTP status is not 200, if the server closes a connection, or after `timeout` seconds.
    """
    selector, waiting, latencies = selectors.DefaultSelector(), iter(bodies), list[float]()
    started = time.perf_counter()
    key_header = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{key_header}Content-Type: {kind}\r\nContent-Length: "
    for _ in range(min(clients, len(bodies))):
        client = _Client(socket.create_connection(("127.0.0.1", port)))
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client.socket, selectors.EVENT_READ, client)
        _send(client, head, next(waiting))
    while selector.get_map():
        assert time.perf_counter() - started < timeout, "timed out waiting for the responses"
        for key, _ in selector.select(timeout=5):
            if _read(key.data):
                latencies.append(time.perf_counter() - key.data.sent)
                _send_next(selector, key.data, head, waiting)
    elapsed = time.perf_counter() - started
    latencies.sort()
    p99 = latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))]
    return Rate(len(bodies) / elapsed, statistics.median(latencies) * 1000, p99 * 1000)


def _send_next(selector: selectors.BaseSelector, client: _Client, head: str, waiting: Iterator[bytes]) -> None:
    body = next(waiting, None)
    if body is None:
        selector.unregister(client.socket)
        client.socket.close()
    else:
        _send(client, head, body)


def _send(client: _Client, head: str, body: bytes) -> None:
    client.data.clear()
    client.missing, client.chunked, client.sent = None, False, time.perf_counter()
    client.socket.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)


def _read(client: _Client) -> bool:
    """Read the bytes that have arrived, and return whether the response is complete."""
    block = client.socket.recv(1 << 18)
    assert block, "the server closed the connection"
    if client.missing is not None:
        client.missing -= len(block)
        return client.missing == 0
    if client.chunked:
        client.data = client.data[-8:] + block
        return client.data.endswith(b"\r\n0\r\n\r\n")
    client.data += block
    end = client.data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = bytes(client.data[:end]).lower()
    assert head.split(b" ", 2)[1] == b"200", bytes(client.data[:500])
    client.chunked = b"transfer-encoding: chunked" in head
    if client.chunked:
        return client.data.endswith(b"\r\n0\r\n\r\n")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    client.missing = length - (len(client.data) - end - 4)
    return client.missing == 0
