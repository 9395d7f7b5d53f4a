"""Starts child processes that do not outlive the launcher and do not see its terminal's Ctrl-C."""

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
        preexec_fn=_die_with_parent,
        stdin=subprocess.DEVNULL,
        **options,
    )


def _die_with_parent() -> None:
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
