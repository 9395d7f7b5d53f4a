"""Made images that a URL names: files under names nobody can guess, for some time, in a folder of bounded size."""

import os
import re
import secrets
import tempfile
import time
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9_-]{43}\.(png|jpeg|webp)")


class ImageStore:
    """Files live for `seconds`; when there are more than `most_bytes`, the oldest go first.

    All processes of the frontend share the folder: what is in it is all there is to know.
    """

    def __init__(self, folder: Path, seconds: float, most_bytes: int):
        self._folder, self._seconds, self._most_bytes = folder, seconds, most_bytes

    def put(self, content: bytes, form: str) -> str:
        """Keep an image and return its name. It is there whole, or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(len(content))
        name = f"{secrets.token_urlsafe(32)}.{form}"
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(content)
        os.replace(file.name, self._folder / name)
        return name

    def get(self, name: str) -> bytes | None:
        """Return the image of this name; None if there is none, or no more."""
        if not _NAME.fullmatch(name):
            return None
        path = self._folder / name
        try:
            if self._is_old(path.stat().st_mtime):
                path.unlink()
                return None
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def _is_old(self, time_made: float) -> bool:
        return time.time() - time_made > self._seconds

    def _make_room(self, needed: int) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files) + needed
        for made, size, path in files:
            if not self._is_old(made) and total <= self._most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found
