"""The frontend's own process: gunicorn with gevent workers. `python -m frontend.server`, set by the environment."""

# Before anything else is imported: whatever has already got hold of a lock or a socket stays as it was.
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
    """gunicorn, configured from our settings alone."""

    def __init__(self, settings: Settings):
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        options: dict[str, Any] = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "worker_class": "gevent",
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
        """Build the application; gunicorn calls this in each worker, after the fork."""
        grpc.experimental.gevent.init_gevent()
        gevent.get_hub().threadpool.maxsize = _NATIVE_THREADS

        # Only now: gRPC's channels do not survive a fork.
        from frontend.app import create_app
        from frontend.triton.client import TritonClient

        triton = TritonClient(self._settings.triton_address, self._settings.triton_http_port)
        return create_app(self._settings, triton, _stop_gunicorn)


def _stop_gunicorn() -> None:
    """Begin gunicorn's graceful shutdown; the launcher sees it end and stops Triton."""
    os.kill(os.getppid(), signal.SIGTERM)


def main() -> None:
    """Serve until told to stop."""
    settings = load_settings()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Libraries do not debug: they would tell the URLs and the contents of files.
    logging.basicConfig(level=max(level, logging.INFO), format="%(message)s", stream=sys.stderr)
    logging.getLogger("frontend").setLevel(level)
    Web(settings).run()


if __name__ == "__main__":
    main()
