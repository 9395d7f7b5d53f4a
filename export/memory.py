"""The memory that models can use."""

from pathlib import Path

import psutil

_UNLIMITED = 1 << 60


def memory_limit() -> int:
    """Return the memory of this machine or, if less, of its container, in bytes."""
    limits = [int(psutil.virtual_memory().total)]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        limits.append(int(text) if text.isdecimal() else _UNLIMITED)
    return min(limits)
