"""Files kept for some time, in a folder of bounded size that all processes of the frontend share."""

import os
import tempfile
import time
from pathlib import Path

import gevent


class ExpiringFiles:
    """Files live for `seconds`; when there are more than `max_bytes` or `max_files`, the oldest go first.

    What is in the folder is all there is to know. Who calls sees to it that names are safe.
    """

    def __init__(self, folder: Path, seconds: float, max_bytes: int, max_files: int = 5000):
        self._folder, self._seconds, self._max_bytes, self._max_files = folder, seconds, max_bytes, max_files

    def put(self, name: str, content: bytes) -> bool:
        """Keep a file, whole or not at all. Returns whether it is kept: not if it alone is over the bound."""
        if len(content) > self._max_bytes:
            return False
        gevent.get_hub().threadpool.apply(self._put, (name, content))  # there may be thousands to look at
        return True

    def _put(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(len(content))
        descriptor, path = tempfile.mkstemp(dir=self._folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.replace(path, self._folder / name)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def get(self, name: str) -> bytes | None:
        """Return the file of this name; None if there is none, or no more."""
        path = self._folder / name
        if path.is_symlink():
            return None
        try:
            if self._is_old(path.stat().st_mtime):
                self._make_room(0)
                return None
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """Forget a file, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def _is_old(self, time_made: float) -> bool:
        return time.time() - time_made > self._seconds

    def _make_room(self, needed: int) -> None:
        """Remove what is old, and of the rest the oldest, until there is room for one more of so many bytes."""
        files = sorted(self._files())
        count, total = len(files), sum(size for _, size, _ in files) + needed
        for made, size, path in files:
            if not self._is_old(made) and total <= self._max_bytes and count < self._max_files:
                break
            path.unlink(missing_ok=True)
            count, total = count - 1, total - size

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found
