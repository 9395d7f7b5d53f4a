"""Decompresses request bodies."""

import zlib

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidRequest, UnsupportedEncoding

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's numbers for formats with a window of 32 KiB

_MAX_RATIO = 4
"""A body may be this many times as large as its compressed form, if it is larger than `always`: see `decompressed`.

Base64 files are about 1.3 times as large as their compressed form. A far larger ratio is an attack: the frontend would
have to read 100 MB or more for each small request.
"""


def content_encoding() -> str:
    """Return the request's Content-Encoding in lower case; an empty string if the body is not encoded."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def decompressed(content: bytes, always: int, limit: int) -> bytes:
    """Return the request's body `content`, decompressed according to its `Content-Encoding`.

    Raises UnsupportedEncoding or InvalidRequest. Raises RequestEntityTooLarge if the result exceeds `limit` bytes, or
    if it exceeds both `always` bytes and _MAX_RATIO times the compressed size.
    """
    encoding = content_encoding()
    if not encoding:
        return content
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding(f"The Content-Encoding '{encoding[:100]}' is not supported: use gzip or deflate")
    limit = min(limit, max(always, _MAX_RATIO * len(content)))
    decompressor = zlib.decompressobj(_deflate_format(content) if encoding == "deflate" else _GZIP)
    try:
        output = decompressor.decompress(content, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"The request body is not valid {encoding}", code="invalid_encoding") from error
    if len(output) > limit:
        raise RequestEntityTooLarge
    if not decompressor.eof or decompressor.unused_data:
        raise InvalidRequest(f"The request body is not valid {encoding}", code="invalid_encoding")
    return output


def _deflate_format(content: bytes) -> int:
    """Return the format of a body with the Content-Encoding `deflate`; some clients leave out the zlib header."""
    has_header = content[:1] != b"" and content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
    return _ZLIB if has_header else _RAW
