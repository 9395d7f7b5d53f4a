"""Notices that the client of the current request has gone away."""

import socket
from collections.abc import Callable, Mapping
from typing import Any

import gevent


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
