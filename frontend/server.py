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
import time
from typing import Any

import gevent
import grpc.experimental.gevent
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from frontend import metrics_folder
from frontend.settings import Settings, load_settings

_NATIVE_THREADS = 64


class Web(BaseApplication):  # type: ignore[misc]
    """The gunicorn application. `load_config` sets its options; gunicorn's command line and files are not used."""

    def __init__(self, settings: Settings):
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options, and skip any that the installed version does not have."""
        settings = self.settings
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
            "child_exit": _forget_worker,
            "worker_exit": _write_usage,
            "forwarder_headers": "",  # headers of a proxy do not change the paths of requests
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def run(self) -> None:
        """Run until the server is stopped."""
        _Arbiter(self).run()

    def load(self) -> Flask:
        """Return the Flask application. gunicorn calls this in each worker, after the fork."""
        grpc.experimental.gevent.init_gevent()
        gevent.get_hub().threadpool.maxsize = _NATIVE_THREADS

        # The Triton clients are imported and created after the fork, because gRPC channels do not survive a fork.
        from frontend.app import create_app
        from frontend.triton.client import TritonClient

        app = create_app(self.settings, TritonClient, _stop_gunicorn)
        app.extensions["trident"].router.watch()
        app.extensions["trident"].gateway.start()
        return app


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's parent process. At SIGTERM, it first reports that it is not ready, and waits for `shutdown_delay`."""

    def handle_term(self) -> None:
        """Begin the graceful shutdown."""
        settings: Settings = self.app.settings
        settings.draining_file.touch()
        time.sleep(settings.shutdown_delay)
        super().handle_term()


def _forget_worker(arbiter: Any, worker: Any) -> None:
    """Delete the gauges of a worker that has exited. gunicorn calls this in the parent process."""
    metrics_folder.mark_process_dead(worker.pid)


def _write_usage(arbiter: Any, worker: Any) -> None:
    """Write what a worker has counted since the last second. gunicorn calls this in the worker when it exits."""
    if getattr(worker, "wsgi", None):
        worker.wsgi.extensions["trident"].gateway.stop()


def _stop_gunicorn() -> None:
    """Start gunicorn's graceful shutdown, from a worker. When gunicorn exits, the launcher stops Triton and exits."""
    os.kill(os.getppid(), signal.SIGTERM)


def main() -> None:
    """Run the server until it is stopped."""
    settings = load_settings()
    metrics_folder.prepare(settings.metrics_folder)  # before prometheus_client is imported
    from frontend.gateway.startup import check

    if problem := check(settings)["problem"]:
        sys.exit(f"trident: {problem}")
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Only our own loggers may have the debug level: libraries would log URLs and file contents at that level.
    logging.basicConfig(level=max(level, logging.INFO), format="%(message)s", stream=sys.stderr)
    logging.getLogger("frontend").setLevel(level)
    settings.draining_file.unlink(missing_ok=True)
    Web(settings).run()


if __name__ == "__main__":
    main()
