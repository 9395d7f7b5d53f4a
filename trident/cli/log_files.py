"""Reads the log files of a server, which are rotated while it runs."""

import os
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
        """Yield the lines that were added to a file since the last call."""
        known, position = self._positions.get(path, (None, 0))
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if known not in (None, inode):  # a new file has followed a full one
                self._positions[path] = inode, 0
                yield from self._rest_of(path.with_name(f"{path.name}.1"), known, position)
                position = 0
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n") and known is not None:
                    break  # it is still being written
                position += len(line)
                self._positions[path] = inode, position
                yield from self._wanted(line)
            self._positions[path] = inode, position

    def _rest_of(self, path: Path, inode: int | None, position: int) -> Iterator[str]:
        """Yield the lines at the end of a full file, if it is the one that was read."""
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == inode:
                    file.seek(position)
                    for line in file:
                        yield from self._wanted(line)
        except FileNotFoundError:
            return

    def _wanted(self, line: bytes) -> Iterator[str]:
        text = line.decode(errors="replace").rstrip("\n")
        if not self._words or any(word in text.lower() for word in self._words):
            yield text


def _names(model: str) -> list[str]:
    """Return the names by which a model is logged: its name in Triton and its IDs."""
    from export.catalog import load_catalog
    from export.sources.reference import catalog_name

    entry = load_catalog().get(catalog_name(model) or "")
    return [name.lower() for name in (model, *((entry.name, *entry.ids) if entry else ()))]
