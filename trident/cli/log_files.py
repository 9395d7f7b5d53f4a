"""Reads the log files of a server, which are rotated while it runs."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

_POLL_SECONDS = 0.2


class LogFiles:
    """The lines of several log files, or only the lines that name a model."""

    def __init__(self, paths: Sequence[Path], model: str | None):
        self._paths, self._words = paths, _names(model) if model else []
        self._positions: dict[Path, tuple[int | None, int]] = {}
        """File → its inode, and how far it has been read."""

    def exist(self) -> bool:
        """Return whether there is any of the files."""
        return any(path.exists() for path in self._paths)

    def last(self, count: int) -> Iterator[str]:
        """Yield the last lines of each file, under its name."""
        for path in self._paths:
            found = deque(self._read(path), maxlen=count)
            if found:
                yield f"==> {path.name} <=="
                yield from found

    def new(self) -> Iterator[str]:
        """Yield lines as they are written, until the caller stops."""
        while True:
            for path in self._paths:
                yield from self._read(path)
            time.sleep(_POLL_SECONDS)

    def _read(self, path: Path) -> Iterator[str]:
        """Yield the complete lines that were added to a file since the last call."""
        known, position = self._positions.get(path, (None, 0))
        if known is not None and _inode(path) != known:  # a new file has followed a full one
            full = path.with_name(f"{path.name}.1")
            if _inode(full) == known:
                for _, line in _lines(full, position):
                    yield from self._wanted(line)
            position = 0
        for end, line in _lines(path, position):
            self._positions[path] = _inode(path), end
            yield from self._wanted(line)

    def _wanted(self, line: bytes) -> Iterator[str]:
        text = line.decode(errors="replace").rstrip("\n")
        if not self._words or any(word in text.lower() for word in self._words):
            yield text


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _lines(path: Path, position: int) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines from a position on, each with the position after it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            yield position, line


def _names(model: str) -> list[str]:
    """Return the names by which a model is logged: its name in Triton and its IDs."""
    from export.catalog import load_catalog
    from export.sources.reference import catalog_name

    entry = load_catalog().get(catalog_name(model) or "")
    return [name.lower() for name in (model, *((entry.name, *entry.ids) if entry else ()))]
