"""Responses: JSON, and server-sent events as OpenAI's streams use them; and clients that leave before the end."""

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
    """Return a 200 with `content`, in which arrays may be numpy's, as JSON."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")


def encode_event(data: dict[str, Any], name: str | None = None) -> bytes:
    """Return one event with `data` as its JSON, and perhaps a name."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


class Closable(Protocol):
    """Work that continues until it ends or is closed."""

    def close(self) -> None: ...


class StreamedResponse(abc.ABC):
    """An HTTP response in the making, of what models send; closes their `source` however the stream ends."""

    def __init__(self, source: Closable):
        self._source, self._log_fields = source, log_fields()

    @abc.abstractmethod
    def events(self) -> Iterator[bytes | None]:
        """Yield encoded events; None after a second without one. Raises APIError."""

    def failure_event(self, error: APIError) -> bytes:
        """Return the last event of a stream that fails."""
        return encode_event(error.body())

    def event_stream(self) -> Response:
        """Return the response as server-sent events; a failure on the way is an event too."""
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


class ClientWatch:
    """Calls `on_gone` once if the client closes its connection before `close()`.

    Watches the socket for reading, since gunicorn would notice only at its next write. A client that sends more (a
    pipelined request) is taken to be there, and not watched any further.
    """

    def __init__(self, environ: Mapping[str, Any], on_gone: Callable[[], None]):
        self._on_gone = on_gone
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._watcher = None
        if self._socket is not None and self._socket.fileno() >= 0:
            self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), 1)
            self._watcher.start(self._readable)

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _readable(self) -> None:
        """Run in gevent's hub, which must not block: whatever follows is done in a greenlet."""
        self.close()
        if self._is_gone():
            gevent.spawn(self._on_gone)

    def _is_gone(self) -> bool:
        assert self._socket is not None  # noqa: S101
        try:
            return socket.socket.recv(self._socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
