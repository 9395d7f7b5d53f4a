"""Starts an engine in its process."""

import contextlib
import logging
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from backends import start_logging
from backends.common.child_process import open_connection
from backends.generation.engine.ipc import Ready

log = logging.getLogger(__name__)


class Engine(Protocol):
    """An engine that receives requests from the backend."""

    def run(self) -> None:
        """Serve until the backend sends Shutdown. Raises EOFError or OSError when the socket closes."""


def serve(folder: Path, open_engine: Callable[[Connection], Engine]) -> None:
    """Load an engine, and run it until the backend disconnects. `folder` is the model's version folder."""
    # Replace the scheduling policy SCHED_BATCH, which the launcher sets, with the normal one: a step is as slow as its
    # slowest thread, so the engine's threads must not wait for other processes when they wake up.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    start_logging(f"{folder.parent.name} engine")
    socket = open_connection()
    engine = open_engine(socket)
    socket.send(Ready())
    try:
        engine.run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        log.info("backend disconnected; exiting")
