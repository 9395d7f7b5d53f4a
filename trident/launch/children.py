"""Child processes that do not outlive the launcher, and their rotating logs."""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

_MAX_BYTES, _MAX_FILES = 10_000_000, 5
_FINISH_SECONDS = 2.0

# The children allocate and free memory blocks of all sizes. By default, glibc creates many heaps for their threads and
# keeps raising the size of the blocks that it puts into these heaps, so fragmentation makes memory use grow. With two
# heaps and a fixed size limit, memory use grows less: blocks of 256 KB or more are returned to the system when freed.
_MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "262144"}


def start_child(
    command: Sequence[str], environment: Mapping[str, str] = os.environ, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start `command` in its own session. If the launcher dies for any reason, the kernel sends the child SIGTERM."""
    return subprocess.Popen(
        command,
        env=_MALLOC | dict(environment),
        start_new_session=True,
        preexec_fn=_prepare_child,
        stdin=subprocess.DEVNULL,
        **options,
    )


def _prepare_child() -> None:
    """Request SIGTERM when the parent dies, and use SCHED_BATCH, so that a waking process does not preempt others.

    The generation engine's process later returns to the normal policy, because each of its steps takes as long as the
    slowest of its threads.
    """
    end_with_parent()
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # not permitted on every system
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def end_with_parent() -> None:
    """Make the kernel send SIGTERM to this process, a child between fork and exec, when its parent dies."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ChildLog:
    """The rotating log file of a child process and of the processes that later replace it.

    An existing log, left by an earlier launcher, is first renamed to `path`.1. If `echo`, lines also go to stderr.
    """

    def __init__(self, path: Path, echo: bool = False):
        self.path, self._echo = path, echo
        path.parent.mkdir(parents=True, exist_ok=True)
        has_old = path.exists() and path.stat().st_size > 0
        self._handler = RotatingFileHandler(
            path, maxBytes=_MAX_BYTES, backupCount=_MAX_FILES - 1, encoding="utf-8", errors="replace"
        )
        if has_old:
            self._handler.doRollover()

        self._thread: threading.Thread | None = None

    def follow(self, output: IO[bytes] | None) -> None:
        """Copy a process's output to the log in the background, until the output ends."""
        assert output is not None  # noqa: S101
        name = f"log {self.path.name}"
        self._thread = threading.Thread(target=self._copy, args=(output,), name=name, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until all output of an exited process is in the log, for at most 2 seconds."""
        if self._thread:
            self._thread.join(_FINISH_SECONDS)

    def _copy(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip("\n")
                self._handler.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))
                if self._echo:
                    try:
                        # Write the line in one call, so that the launcher's own output does not split it.
                        sys.stderr.write(text + "\n")
                    except (OSError, ValueError):
                        self._echo = False  # the terminal is closed; keep writing to the file
