"""Made images that a URL names: files under names nobody can guess, for some time, in a folder of bounded size."""

import re
import secrets
from pathlib import Path

from frontend.errors import PayloadTooLarge
from frontend.storage.expiring_files import ExpiringFiles

_NAME = re.compile(r"[A-Za-z0-9_-]{43}\.(png|jpeg|webp)")


class ImageStore:
    """Images live for `seconds`, those in `folder` having `max_bytes` together, by names that say their format."""

    def __init__(self, folder: Path, seconds: float, max_bytes: int):
        self._files, self._max_bytes = ExpiringFiles(folder, seconds, max_bytes), max_bytes

    def put(self, content: bytes, form: str) -> str:
        """Keep an image and return its name. Raises PayloadTooLarge."""
        name = f"{secrets.token_urlsafe(32)}.{form}"
        if not self._files.put(name, content):
            raise PayloadTooLarge(f"The image has more than the {self._max_bytes} bytes that are kept for URLs")
        return name

    def get(self, name: str) -> bytes | None:
        """Return the image of this name; None if there is none, or no more."""
        return self._files.get(name) if _NAME.fullmatch(name) else None
