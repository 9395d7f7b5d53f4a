"""A load generator that uses little CPU: one thread sends and reads many streamed chats over plain sockets."""

import selectors
import socket
import statistics
import time
from dataclasses import dataclass, field

import orjson


@dataclass
class Stream:
    """A streamed chat in progress."""

    socket: socket.socket
    started: float
    data: bytearray = field(default_factory=bytearray)
    first_token: float | None = None


@dataclass(frozen=True)
class Load:
    """The results of one call to `run_streams`.

    `tokens` counts the completion tokens of all streams; `first_token_ms` is the median time to the first text.
    """

    tokens_per_second: float
    first_token_ms: float
    tokens: int


def chat_body(model: str, text: str, max_tokens: int) -> bytes:
    """Return the body of a streamed chat request that generates exactly `max_tokens` tokens by greedy decoding."""
    return orjson.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


def run_streams(port: int, bodies: list[bytes], timeout: float = 300, key: str = "") -> Load:
    """Send each body on its own connection to 127.0.0.1:`port`, then read all streams to their ends.

    Raises AssertionError if that takes more than `timeout` seconds, or if a stream ends without `[DONE]`.
    """
    selector = selectors.DefaultSelector()
    started = time.perf_counter()
    streams = []
    for body in bodies:
        connection = socket.create_connection(("127.0.0.1", port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key else ""
        stream = Stream(connection, time.perf_counter())
        connection.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
        selector.register(connection, selectors.EVENT_READ, stream)
        streams.append(stream)
    while selector.get_map():
        assert time.perf_counter() - started < timeout, "the streams did not end in time"
        for key, _ in selector.select(timeout=5):
            _read(selector, key.data)
    elapsed = time.perf_counter() - started
    tokens = sum(_completion_tokens(stream) for stream in streams)
    first = [stream.first_token - stream.started for stream in streams if stream.first_token is not None]
    return Load(tokens / elapsed, statistics.median(first) * 1000, tokens)


def _read(selector: selectors.BaseSelector, stream: Stream) -> None:
    block = stream.socket.recv(1 << 16)
    if not block:
        selector.unregister(stream.socket)
        stream.socket.close()
        return
    stream.data += block
    if stream.first_token is None and _has_text(stream.data):
        stream.first_token = time.perf_counter()


def _has_text(data: bytearray) -> bool:
    """Return whether the data contains a delta whose content is not empty."""
    start = data.find(b'"content":"')
    while start >= 0:
        if data[start + 11 : start + 12] not in (bytearray(b'"'), bytearray()):
            return True
        start = data.find(b'"content":"', start + 11)
    return False


def _completion_tokens(stream: Stream) -> int:
    assert b"[DONE]" in stream.data, bytes(stream.data[-300:])
    start = stream.data.rindex(b'"completion_tokens":') + len(b'"completion_tokens":')
    digits = bytes(stream.data[start : start + 12]).split(b",")[0].split(b"}")[0]
    return int(digits)
