"""A program of ours in a process of its own, and the connection to it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path


class ChildProcess:
    """Runs `command`, whose last argument then is the descriptor of its end of `connection` (see open_connection)."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = os.environ):
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [*command, str(theirs.fileno())]
            self._process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], env=environment)
        self.connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """End it. The connection stays open, so that its reader notices."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and close the connection."""
        self.kill()
        self.connection.close()


def own_module(name: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment that run a module of ours with this Python and its packages."""
    # Inside Triton's stub sys.executable may be the stub itself.
    candidates = [sys.executable, shutil.which("python3")]
    python = next(p for p in candidates if p and "python" in Path(p).name and "stub" not in Path(p).name)
    packages = os.pathsep.join(filter(None, sys.path))
    return [python, "-m", name], os.environ | {"PYTHONPATH": packages}


def open_connection() -> Connection:
    """Return the child's end of the connection."""
    return Connection(int(sys.argv[-1]))
