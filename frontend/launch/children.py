"""Starts child processes that do not outlive the launcher and do not see its terminal's Ctrl-C."""

import ctypes
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def start_child(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start `command` in a session of its own; it gets SIGTERM if the launcher dies, however that happens."""
    return subprocess.Popen(
        command, start_new_session=True, preexec_fn=_die_with_parent, stdin=subprocess.DEVNULL, **options
    )


def _die_with_parent() -> None:
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
