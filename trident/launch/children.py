"""Starts child processes that do not outlive the launcher and do not see its terminal's Ctrl-C."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

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
