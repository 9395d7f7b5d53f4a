"""Decompresses request bodies."""

import zlib

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidRequest, UnsupportedEncoding

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content-Encoding → zlib's number for the format: a gzip or a zlib header, and a window of at most 32 KiB."""


def decompressed(content: bytes, limit: int) -> bytes:
    """Return the request's body `content`, decompressed according to its `Content-Encoding`.

    Raises RequestEntityTooLarge if the result exceeds `limit` bytes, UnsupportedEncoding or InvalidRequest.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return content
    if encoding not in _WINDOW_BITS:
        raise UnsupportedEncoding(f"The Content-Encoding '{encoding[:100]}' is not supported: use gzip or deflate")
    decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        output = decompressor.decompress(content, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"The request body is not valid {encoding}", code="invalid_encoding") from error
    if len(output) > limit:
        raise RequestEntityTooLarge
    if not decompressor.eof or decompressor.unused_data:
        raise InvalidRequest(f"The request body is not valid {encoding}", code="invalid_encoding")
    return output
