"""Server-sent events, as OpenAI's streams use them."""

from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": waiting\n\n"
CONTENT_TYPE = "text/event-stream; charset=utf-8"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def encode_event(data: dict[str, Any], name: str | None = None) -> bytes:
    """Return one event with `data` as its JSON, and perhaps a name."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"
