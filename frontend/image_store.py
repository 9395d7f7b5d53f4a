"""Made images that a URL names: files under names nobody can guess, for some time, in a folder of bounded size."""

import os
import re
import secrets
import tempfile
import time
from pathlib import Path

from frontend.errors import PayloadTooLarge

_NAME = re.compile(r"[A-Za-z0-9_-]{43}\.(png|jpeg|webp)")

# However small they are: each new one has the folder read.
_MOST_FILES = 5000


class ImageStore:
    """Files live for `seconds`; when there are more than `most_bytes`, the oldest go first.

    All processes of the frontend share the folder: what is in it is all there is to know.
    """

    def __init__(self, folder: Path, seconds: float, most_bytes: int):
        self._folder, self._seconds, self._most_bytes = folder, seconds, most_bytes

    def put(self, content: bytes, form: str) -> str:
        """Keep an image and return its name. It is there whole, or not at all. Raises PayloadTooLarge."""
        if len(content) > self._most_bytes:
            raise PayloadTooLarge(f"The image has more than the {self._most_bytes} bytes that are kept for URLs")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(len(content))
        name = f"{secrets.token_urlsafe(32)}.{form}"
        descriptor, path = tempfile.mkstemp(dir=self._folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.replace(path, self._folder / name)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return name

    def get(self, name: str) -> bytes | None:
        """Return the image of this name; None if there is none, or no more."""
        path = self._folder / name
        if not _NAME.fullmatch(name) or path.is_symlink():
            return None
        try:
            if self._is_old(path.stat().st_mtime):
                self._make_room(0)
                return None
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def _is_old(self, time_made: float) -> bool:
        return time.time() - time_made > self._seconds

    def _make_room(self, needed: int) -> None:
        """Remove what is old, and of the rest the oldest, until there is room for so many bytes."""
        files = sorted(self._files())
        count, total = len(files), sum(size for _, size, _ in files) + needed
        for made, size, path in files:
            if not self._is_old(made) and total <= self._most_bytes and count < _MOST_FILES:
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
