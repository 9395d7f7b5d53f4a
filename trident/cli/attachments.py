"""Texts and files that a user gives to a command: paths, standard input, and files as parts of a chat message."""

import base64
import mimetypes
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from trident.cli.options import fail

_SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".webm"),
    "video": (".mp4", ".mov", ".mkv", ".avi"),
}
_MAX_BYTES = 1_000_000_000

# A path in a prompt: in quotes, or with escaped blanks as terminals insert a file that is dropped on them.
_PATH = re.compile(r"""(?<!\S)(?:'([^'\n]+)'|"([^"\n]+)"|((?:\\.|[^\s\\])+))""")
_PUNCTUATION = "?.,;:!)"
_ACCEPTED = {"image": "images", "audio": "audio"}


def media_kind(name: str) -> str | None:
    """Return `image`, `audio` or `video` for the name or URL of such a file, and None for all others."""
    path = urlsplit(name).path if "://" in name else name
    suffix = Path(path).suffix.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes), None)


def local_path(text: str) -> Path:
    """Return the path in a text, which may be a file:// URL, also a relative one as `file://./name`."""
    path = Path(unquote(text.removeprefix("file://")) if text.startswith("file://") else text)
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user
        return path


def is_file(text: str) -> bool:
    """Return whether a text is the path or the file:// URL of a file."""
    try:
        return local_path(text).is_file()
    except (OSError, ValueError):  # too long, or with a null byte
        return False


def read_file(path: Path) -> bytes:
    """Return the content of a file of at most 1 GB. Raise ClickException if it cannot be read."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            fail(f"{click.format_filename(path)} is larger than {_MAX_BYTES / 1e9:.0f} GB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        fail(f"{click.format_filename(path)} cannot be read: {getattr(error, 'strerror', error)}")


def read_text(path: Path) -> str:
    """Return the text of a file. Raise ClickException if it cannot be read, or is not UTF-8."""
    return _decoded(read_file(path), click.format_filename(path))


def read_stdin() -> str:
    """Return the text on standard input, or an empty text if it is a terminal. Raise ClickException if not UTF-8."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return _decoded(sys.stdin.buffer.read(), "Standard input")


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        fail(f"{name} is not UTF-8 text")


def save_file(path: Path, content: bytes) -> str:
    """Write a file and the folders above it, and return its name to print. Raise ClickException if that fails."""
    name = click.format_filename(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        fail(f"{name} cannot be written: {error.strerror}")
    return name


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


def prompt_content(prompt: str, kinds: Collection[str]) -> tuple[Any, list[str]]:
    """Return the content of a message with the files that a prompt names, and the names of these files.

    `kinds` are the kinds of media that the model accepts; other files stay in the text, with a note.
    """
    text, paths = _split_prompt(prompt, kinds)
    if not paths:
        return prompt, []
    parts = [content_part(path) for path in paths]
    return [*([{"type": "text", "text": text}] if text else []), *parts], paths


def _split_prompt(prompt: str, kinds: Collection[str]) -> tuple[str, list[str]]:
    """Return a prompt without the paths of existing images and audio files, and these paths."""
    paths: list[str] = []

    def taken(match: re.Match[str]) -> str:
        quoted, plain = match[1] or match[2], re.sub(r"\\(.)", r"\1", match[3] or "")
        # A sentence may end after the path.
        for name in [quoted] if quoted else [plain, plain.rstrip(_PUNCTUATION)]:
            kind = media_kind(name)
            if kind not in _ACCEPTED or name.startswith(("http://", "https://")) or not is_file(name):
                continue
            if kind not in kinds:
                click.echo(f"{name} is not attached: the model does not accept {_ACCEPTED[kind]}", err=True)
                return match[0]
            paths.append(str(local_path(name)))
            return "" if quoted else plain[len(name) :]
        return f"{match[0][0]}{_PATH.sub(taken, quoted)}{match[0][-1]}" if quoted else match[0]

    text = _PATH.sub(taken, prompt)
    return (re.sub(r" +([?.,;:!)])", r"\1", text).strip(), paths) if paths else (prompt, [])
