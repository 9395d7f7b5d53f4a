"""The frontend process, `python -m frontend.server`: gunicorn with gevent workers.

The launcher passes the settings as environment variables.
"""

# monkey.patch_all() must precede all other imports. Patching does not change the locks and sockets that a module has
# already created, or the functions that a module has already imported by name.
from gevent import monkey

monkey.patch_all()

import logging
import os
import signal
import sys
from typing import Any

import gevent
import grpc.experimental.gevent
from flask import Flask
from gunicorn.app.base import BaseApplication

from frontend.settings import Settings, load_settings

_NATIVE_THREADS = 64


class Web(BaseApplication):  # type: ignore[misc]
    """The gunicorn application. `load_config` sets its options; gunicorn's command line and files are not used."""

    def __init__(self, settings: Settings):
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options, and skip any that the installed version does not have."""
        settings = self._settings
        options: dict[str, Any] = {
            "bind": settings.address,
            "workers": settings.workers,
            "worker_class": "frontend.http.worker.Worker",
            "worker_connections": 2000,
            "graceful_timeout": settings.drain_seconds,
            "timeout": 30,
            "keepalive": 75,
            "loglevel": "warning",
            "proc_name": "trident",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the Flask application. gunicorn calls this in each worker, after the fork."""
        grpc.experimental.gevent.init_gevent()
        gevent.get_hub().threadpool.maxsize = _NATIVE_THREADS

        # The Triton client is imported and created after the fork, because gRPC channels do not survive a fork.
        from frontend.app import create_app
        from frontend.triton.client import TritonClient

        triton = TritonClient(self._settings.triton_address, self._settings.triton_http_port)
        return create_app(self._settings, triton, _stop_gunicorn)


def _stop_gunicorn() -> None:
    """Start gunicorn's graceful shutdown, from a worker. When gunicorn exits, the launcher stops Triton and exits."""
    os.kill(os.getppid(), signal.SIGTERM)


def main() -> None:
    """Run the server until it is stopped."""
    settings = load_settings()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Only our own loggers may have the debug level: libraries would log URLs and file contents at that level.
    logging.basicConfig(level=max(level, logging.INFO), format="%(message)s", stream=sys.stderr)
    logging.getLogger("frontend").setLevel(level)
    Web(settings).run()


if __name__ == "__main__":
    main()
