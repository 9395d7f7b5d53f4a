"""Files with a time to live, in a folder of limited size that all frontend processes share."""

import os
import tempfile
import time
from pathlib import Path

import gevent


class ExpiringFiles:
    """Files that expire after `seconds`.

    The oldest files are evicted so that at most `max_files` files, with at most `max_bytes` in total, are stored. All
    state is in the folder. Callers must not pass names that lead out of the folder.
    """

    def __init__(self, folder: Path, seconds: float, max_bytes: int, max_files: int = 5000):
        self._folder, self._seconds, self._max_bytes, self._max_files = folder, seconds, max_bytes, max_files

    def put(self, name: str, content: bytes) -> bool:
        """Store a file atomically and return True, or return False if `content` is larger than `max_bytes`."""
        if len(content) > self._max_bytes:
            return False
        # On a native thread, because _put may scan thousands of files.
        gevent.get_hub().threadpool.apply(self._put, (name, content))
        return True

    def _put(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._evict(len(content))
        descriptor, path = tempfile.mkstemp(dir=self._folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.replace(path, self._folder / name)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def get(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist, has expired or is a symbolic link."""
        path = self._folder / name
        if path.is_symlink():
            return None
        try:
            if self._is_expired(path.stat().st_mtime):
                self._evict(0)
                return None
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        (self._folder / name).unlink(missing_ok=True)

    def _is_expired(self, created: float) -> bool:
        return time.time() - created > self._seconds

    def _evict(self, needed: int) -> None:
        """Remove expired files, then the oldest, until one more file of `needed` bytes fits."""
        files = sorted(self._files())
        count, total = len(files), sum(size for _, size, _ in files) + needed
        for created, size, path in files:
            if not self._is_expired(created) and total <= self._max_bytes and count < self._max_files:
                break
            path.unlink(missing_ok=True)
            count, total = count - 1, total - size

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process has removed it
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found
