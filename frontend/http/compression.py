"""Decompresses request bodies."""

import zlib

import zstandard
from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidHTTP, InvalidRequest, UnsupportedEncoding

_ZSTD_WINDOW = 8 << 20
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's numbers for formats with a window of 32 KiB

_MAX_RATIO = 4
"""A body may be this many times as large as its compressed form, if it is larger than `always`: see `decompressed`.

Base64 files are about 1.3 times as large as their compressed form. A far larger ratio is an attack: the frontend would
have to read 100 MB or more for each small request.
"""


def content_encoding() -> str:
    """Return the request's Content-Encoding in lower case; an empty string if the body is not encoded.

    Raises InvalidHTTP for a Transfer-Encoding that gunicorn accepts, but does not decode.
    """
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() not in ("chunked", "identity"):
        raise InvalidHTTP("The only supported Transfer-Encoding is chunked", 501)
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
    if encoding not in ("gzip", "x-gzip", "deflate", "zstd"):
        raise UnsupportedEncoding(
            f"The Content-Encoding '{encoding[:100]}' is not supported: use gzip, deflate or zstd"
        )
    limit = min(limit, max(always, _MAX_RATIO * len(content)))
    try:
        output, complete = _zstd(content, limit + 1) if encoding == "zstd" else _zlib(content, encoding, limit + 1)
    except (zlib.error, zstandard.ZstdError) as error:
        raise InvalidRequest(f"The request body is not valid {encoding}", code="invalid_encoding") from error
    if len(output) > limit:
        raise RequestEntityTooLarge
    if not complete:
        raise InvalidRequest(f"The request body is not valid {encoding}", code="invalid_encoding")
    return output


def _zlib(content: bytes, encoding: str, size: int) -> tuple[bytes, bool]:
    """Return at most `size` bytes of the decompressed content, and whether the content ends where it should."""
    decompressor = zlib.decompressobj(_deflate_format(content) if encoding == "deflate" else _GZIP)
    return decompressor.decompress(content, size), decompressor.eof and not decompressor.unused_data


def _zstd(content: bytes, size: int) -> tuple[bytes, bool]:
    """Return the same as `_zlib`, except that there may be up to 33 MB more than `size` bytes.

    The window, for which memory is reserved, is limited to 8 MiB as in RFC 9659.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    output, position = bytearray(), 0
    while position < len(content) and len(output) < size and not decompressor.eof:
        # 4 bytes can become 128 KiB, and zstandard has no limit on what comes out, so a little goes in at a time.
        output += decompressor.decompress(content[position : position + 1024])
        position += 1024
    return bytes(output), decompressor.eof and not decompressor.unused_data and position >= len(content)


def _deflate_format(content: bytes) -> int:
    """Return the format of a body with the Content-Encoding `deflate`; some clients leave out the zlib header."""
    has_header = content[:1] != b"" and content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
    return _ZLIB if has_header else _RAW
