"""The folder in which the frontend's processes share their metrics.

prometheus_client chooses between one process and many when it is imported, by an environment variable. This module does
not import it, so that the variable can be set first.
"""

import os
import sys
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(folder: Path) -> None:
    """Make this process and its future children share their metrics in `folder`, and delete the metrics in it.

    Call this in the parent process, before prometheus_client is imported. No two running frontends may share a folder.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before the metrics folder was prepared")
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    os.environ[VARIABLE] = str(folder)


def mark_process_dead(pid: int) -> None:
    """Delete the gauges of a process that has exited. Its counters are kept, because a counter must never decrease."""
    from prometheus_client.multiprocess import mark_process_dead as delete_gauges

    delete_gauges(pid)  # type: ignore[no-untyped-call]
