"""Runs Python code of this project in a child process, with a connection to it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path


class ChildProcess:
    """Runs `command` with an additional argument: the file descriptor of the child's end of `connection`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = os.environ):
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [*command, str(theirs.fileno())]
            self._process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], env=environment)
        self.connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not exited."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the process to exit and return its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """Kill the process. This end of the connection stays open; reading from it raises EOFError."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill the process and close the connection."""
        self.kill()
        self.connection.close()


def module_command(name: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment that run a module of this project with this Python and its packages."""
    # In Triton's stub process, sys.executable may be the stub instead of Python.
    candidates = [sys.executable, shutil.which("python3")]
    python = next(p for p in candidates if p and "python" in Path(p).name and "stub" not in Path(p).name)
    packages = os.pathsep.join(filter(None, sys.path))
    return [python, "-m", name], os.environ | {"PYTHONPATH": packages}


def open_connection() -> Connection:
    """Return the child's end of the connection. Call this in the child: it reads the last command-line argument."""
    return Connection(int(sys.argv[-1]))
