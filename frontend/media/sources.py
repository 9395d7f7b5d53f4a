"""Reads the files that a request refers to by URL: data:, base64://, file:// and http(s)://.

The operator must allow files on this machine (`allow_files`) and hosts with private addresses (`allow_hosts`).
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from frontend.errors import APIError, InvalidRequest, file_too_large
from frontend.media import remote
from frontend.settings import Settings

_SPACE = re.compile(r"\s+")


def read_media(url: str, param: str, settings: Settings) -> bytes:
    """Return the content that `url` refers to.

    Raises InvalidRequest if the file cannot be read, Overloaded if too many downloads are in progress, or
    PayloadTooLarge if the file exceeds the upload limit. Errors name `param`, the request field with the URL.
    """
    readers: dict[str, Callable[[str, Settings], bytes]] = {
        "data": _read_data,
        "base64": _read_base64,
        "file": _read_file,
        "http": remote.fetch,
        "https": remote.fetch,
    }
    try:
        reader = readers.get(url.partition(":")[0].lower())
        if reader is None:
            raise InvalidRequest(
                "The URL must start with data:, base64://, file://, http:// or https://", code="invalid_url"
            )
        content = reader(url, settings)
        if not content:
            raise InvalidRequest("The file is empty", code="empty_file")
        if len(content) > settings.max_upload_bytes:
            raise file_too_large(settings.max_upload_bytes)
    except APIError as error:
        error.param = param
        raise
    return content


def _read_data(url: str, settings: Settings) -> bytes:
    head, comma, data = url.partition(",")
    if not comma:
        raise InvalidRequest("A data: URL must have a comma before its data", code="invalid_url")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    return _decode(unquote(data) if "%" in data else data)


def _read_base64(url: str, settings: Settings) -> bytes:
    return _decode(url.partition("://")[2])


def _decode(data: str) -> bytes:
    """Return decoded base64. Padding may be missing, and there may be white space anywhere."""
    try:
        return _decode_plain(data)
    except (binascii.Error, ValueError):  # removing the white space of large data takes a while, and is rarely needed
        try:
            return _decode_plain(_SPACE.sub("", data))
        except (binascii.Error, ValueError):
            raise InvalidRequest("The data is not valid base64", code="invalid_base64") from None


def _decode_plain(data: str) -> bytes:
    return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)


def _read_file(url: str, settings: Settings) -> bytes:
    message = "The file does not exist or is not in a folder listed in --allow-files"
    try:
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise PermissionError
        path = Path(unquote(parts.path)).resolve()
        _check_allowed(path, settings)
        # Do not follow a link that was created after resolve(), and do not block if the file is a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return _read_regular(descriptor, settings)
        finally:
            os.close(descriptor)
    except (OSError, ValueError, RuntimeError):  # resolve() raises RuntimeError if links form a loop
        raise InvalidRequest(message, code="file_not_allowed") from None


def _check_allowed(path: Path, settings: Settings) -> None:
    if not any(path.is_relative_to(folder.resolve()) for folder in settings.allow_files):
        raise PermissionError


def _read_regular(descriptor: int, settings: Settings) -> bytes:
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        raise PermissionError
    # Check the path of the open file too: a link may have replaced a folder on the path since the first check.
    _check_allowed(Path(f"/proc/self/fd/{descriptor}").readlink(), settings)
    if about.st_size > settings.max_upload_bytes:
        raise file_too_large(settings.max_upload_bytes)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(settings.max_upload_bytes + 1)
