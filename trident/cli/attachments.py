"""Files that a user names in a command or a prompt, as parts of a chat message."""

import base64
import mimetypes
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trident.cli.options import fail

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".webm")
_VIDEO = (".mp4", ".mov", ".mkv", ".avi")
_MAX_BYTES = 100_000_000

# A path in a prompt: in quotes, or with escaped blanks as terminals insert a file that is dropped on them.
_PATH = re.compile(r"""'([^'\n]+)'|"([^"\n]+)"|((?:\\.|[^\s\\'"])+)""")


def media_kind(name: str) -> str | None:
    """Return `image`, `audio` or `video` for the name or URL of such a file, and None for all others."""
    path = urlsplit(name).path if "://" in name else name
    suffix = Path(path).suffix.lower()
    kinds = {"image": _IMAGES, "audio": _AUDIO, "video": _VIDEO}
    return next((kind for kind, suffixes in kinds.items() if suffix in suffixes), None)


def local_path(text: str) -> Path:
    """Return the path in a text, which may be a file:// URL, also a relative one as `file://./name`."""
    return Path(unquote(text.removeprefix("file://")) if text.startswith("file://") else text).expanduser()


def read_file(path: Path) -> bytes:
    """Return the content of a file of at most 100 MB. Raise ClickException if it cannot be read."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            fail(f"{path} is larger than {_MAX_BYTES / 1e6:.0f} MB")
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")


def content_part(name: str) -> dict[str, Any]:
    """Return the part of a chat message for an image or audio file, or for the URL of an image."""
    kind = media_kind(name)
    if kind == "video":
        fail(f"{name}: videos are not supported; extract images from it")
    if name.startswith(("http://", "https://")):
        return {"type": "image_url", "image_url": {"url": name}}
    path = local_path(name)
    encoded = base64.b64encode(read_file(path)).decode()
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": path.suffix[1:].lower()}}
    mime = mimetypes.guess_type(path.name)[0] or "image/png"
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{encoded}"}}


def split_prompt(text: str) -> tuple[str, list[str]]:
    """Return a prompt without the paths of images and audio files in it, and these paths.

    Only files that exist are taken out. Without any, the prompt is returned unchanged.
    """
    paths: list[str] = []

    def taken(match: re.Match[str]) -> str:
        plain = match[1] or match[2] or re.sub(r"\\(.)", r"\1", match[3])
        if media_kind(plain) in ("image", "audio") and "://" not in plain.removeprefix("file://"):
            path = local_path(plain)
            if path.is_file():
                paths.append(str(path))
                return ""
        return match[0]

    rest = _PATH.sub(taken, text)
    return (rest.strip(), paths) if paths else (text, [])
