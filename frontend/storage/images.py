"""Stores the generated images that Trident serves by URL, as files with unguessable names."""

import re
import secrets
from pathlib import Path

from frontend.errors import PayloadTooLarge
from frontend.storage.expiring_files import ExpiringFiles

_NAME = re.compile(r"[A-Za-z0-9_-]{43}\.(png|jpeg|webp)")


class ImageStore:
    """Images that expire after `seconds` and have at most `max_bytes` in total. A name ends in the image's format."""

    def __init__(self, folder: Path, seconds: float, max_bytes: int):
        self._files, self._max_bytes = ExpiringFiles(folder, seconds, max_bytes), max_bytes

    def put(self, content: bytes, image_format: str) -> str:
        """Store an image and return its name. Raises PayloadTooLarge if the image exceeds `max_bytes`."""
        name = f"{secrets.token_urlsafe(32)}.{image_format}"
        if not self._files.put(name, content):
            limit = f"the limit of {self._max_bytes:,} bytes for stored images"
            raise PayloadTooLarge(f"The image exceeds {limit}; use 'response_format': b64_json")
        return name

    def get(self, name: str) -> bytes | None:
        """Return the image with this name, or None if it does not exist or has expired."""
        return self._files.get(name) if _NAME.fullmatch(name) else None
