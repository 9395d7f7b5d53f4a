"""JSON responses, server-sent events in OpenAI's format, and detection of clients that disconnect early."""

import abc
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import gevent
import orjson
from flask import Response, stream_with_context

from frontend.access_log import log_fields
from frontend.errors import APIError

DONE = b"data: [DONE]\n\n"
_HEARTBEAT = b": waiting\n\n"
_EVENT_STREAM = "text/event-stream; charset=utf-8"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def json_response(content: Any) -> Response:
    """Return a 200 response with `content` as JSON; `content` may contain NumPy arrays."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")


def encode_event(data: dict[str, Any], name: str | None = None) -> bytes:
    """Return a server-sent event with `data` as JSON and, if given, the event name `name`."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


class Closable(Protocol):
    """Work that runs until it ends or is closed."""

    def close(self) -> None: ...


class StreamedResponse(abc.ABC):
    """An HTTP response that can be streamed. `source`, the calls to models, is closed when the stream ends."""

    def __init__(self, source: Closable):
        self._source, self._log_fields = source, log_fields()

    @abc.abstractmethod
    def events(self) -> Iterator[bytes | None]:
        """Yield encoded events, and None for each second without an event. Raises APIError."""

    def failure_event(self, error: APIError) -> bytes:
        """Return the final event of a stream that fails."""
        return encode_event(error.body())

    def event_stream(self) -> Response:
        """Return the response as server-sent events. An APIError during the stream is sent as the last event."""
        return Response(stream_with_context(self._stream()), headers=_HEADERS, content_type=_EVENT_STREAM)

    def _stream(self) -> Iterator[bytes]:
        try:
            for event in self.events():
                yield _HEARTBEAT if event is None else event
        except APIError as error:
            self._log_fields |= error.log_fields()
            yield self.failure_event(error)
        finally:
            self._source.close()


class DisconnectWatcher:
    """Calls `on_disconnect` once if the client disconnects before `close()` is called.

    gunicorn detects a disconnect only at its next write. This class detects a disconnect earlier, because the socket
    becomes readable when the client closes the connection. The socket also becomes readable if the client sends more
    data (a pipelined request). In that case, the client counts as connected, and the socket is no longer watched.
    """

    def __init__(self, environ: Mapping[str, Any], on_disconnect: Callable[[], None]):
        self._on_disconnect = on_disconnect
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._watcher = None
        if self._socket is not None and self._socket.fileno() >= 0:
            self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), 1)
            self._watcher.start(self._readable)

    def close(self) -> None:
        """Stop watching the socket."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _readable(self) -> None:
        """Check the connection. Runs in gevent's hub, which must not block, so the callback gets its own greenlet."""
        self.close()
        if self._is_disconnected():
            gevent.spawn(self._on_disconnect)

    def _is_disconnected(self) -> bool:
        assert self._socket is not None  # noqa: S101
        try:
            return socket.socket.recv(self._socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
