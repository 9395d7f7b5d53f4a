"""JSON responses, server-sent events in OpenAI's format, and detection of clients that disconnect early."""

import abc
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import gevent
import orjson
from flask import Flask, Response, request, stream_with_context

from frontend.access_log import log_fields
from frontend.errors import APIError

DONE = b"data: [DONE]\n\n"
_PROBE_SECONDS = 0.2
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_HAS_BEGUN = "trident.response_has_begun"
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


def register_response_start(app: Flask) -> None:
    """Make `app` note in the WSGI environment of a request that its response begins."""

    def note(response: Response) -> Response:
        request.environ[_HAS_BEGUN] = True
        return response

    app.after_request(note)


class DisconnectWatcher:
    """Calls `on_disconnect` once if the client disconnects before `close()` is called.

    gunicorn detects a disconnect only at its next write. This class detects a disconnect earlier, because the socket
    becomes readable when the client closes the connection. The socket also becomes readable if the client sends more
    data (a pipelined request). In that case, the client counts as connected, and the socket is no longer watched.

    A client that only shuts down its sending side waits for the response. A write tells the two apart: if the client
    has closed the connection, its system answers with a reset. Before the response has begun, the interim response
    `100 Continue` is written, which clients skip; HTTP/1.0 has no such response, so a client of HTTP/1.0 counts as
    disconnected. After the response has begun (see `register_response_start`), gunicorn's next write has that effect.
    """

    def __init__(self, environ: Mapping[str, Any], on_disconnect: Callable[[], None]):
        self._on_disconnect = on_disconnect
        self._can_probe = environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
        self._environ = environ
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._watcher, self._closed = None, False
        if self._socket is not None and self._socket.fileno() >= 0:
            self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), 1)
            self._watcher.start(self._readable)

    def close(self) -> None:
        """Stop watching the socket."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _readable(self) -> None:
        """Check the connection. Runs in gevent's hub, which must not block, so the callback gets its own greenlet."""
        self._stop()
        if self._is_at_end():
            gevent.spawn(self._probe)

    def _probe(self) -> None:
        """Call `on_disconnect` as soon as the client turns out to have closed the connection."""
        while not self._closed:
            if not self._can_probe or self._is_reset():
                self._on_disconnect()
                return
            gevent.sleep(_PROBE_SECONDS)

    def _is_reset(self) -> bool:
        """Return whether the connection is closed. Before the response has begun, write an interim response first.

        gevent's own `send` would wait until the client reads, and could then write into the response.
        """
        try:
            if _HAS_BEGUN not in self._environ:
                self._raw_socket().send(_INTERIM, socket.MSG_DONTWAIT)
            self._raw_socket().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def _is_at_end(self) -> bool:
        """Return whether the client sends nothing more."""
        try:
            return bool(self._raw_socket().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _raw_socket(self) -> Any:
        """Return the operating system's socket behind gevent's."""
        return getattr(self._socket, "_sock", self._socket)
