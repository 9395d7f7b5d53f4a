"""Child processes: started so that they do not outlive the launcher, and their logs, which rotate."""

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
_MOMENT_SECONDS = 2.0

# Files of all sizes come and go. With a heap for each thread, or with large blocks in heaps, memory grows with each one
# of another size; so there are two heaps, and a block of 256 KB and more goes back to the system when it is free.
_MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "262144"}


def start_child(
    command: Sequence[str], environment: Mapping[str, str] = os.environ, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start `command` in a session of its own; it gets SIGTERM if the launcher dies, however that happens."""
    return subprocess.Popen(
        command,
        env=_MALLOC | dict(environment),
        start_new_session=True,
        preexec_fn=_behave,
        stdin=subprocess.DEVNULL,
        **options,
    )


def _behave() -> None:
    """Die with the parent; and when there is something to do, do not push others off a processor.

    A step of the engine, which takes its own processes out of this, is as slow as the slowest of its threads.
    """
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # not everywhere may one choose
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class ChildLog:
    """The log of one kind of process in `path`; an earlier instance's becomes path.1. `echo`: also to stderr."""

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
        """Copy what a process writes, until it has ended."""
        assert output is not None  # noqa: S101
        name = f"log {self.path.name}"
        self._thread = threading.Thread(target=self._copy, args=(output,), name=name, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait, for a moment at most, until what a process that has ended said is all there."""
        if self._thread:
            self._thread.join(_MOMENT_SECONDS)

    def _copy(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip("\n")
                self._handler.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))
                if self._echo:
                    try:
                        sys.stderr.write(text + "\n")  # in one piece, beside what the launcher says
                    except (OSError, ValueError):
                        self._echo = False  # the terminal is closed; the file goes on
