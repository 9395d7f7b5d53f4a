"""Files that a request names instead of carrying them: data:, base64://, file:// and http(s)://.

Nothing is read from this machine or its network that the operator has not allowed (`allow_files`, `allow_hosts`).
"""

import base64
import binascii
import ipaddress
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urljoin, urlsplit

import gevent
import urllib3

from frontend.errors import InvalidRequest, PayloadTooLarge
from frontend.settings import Settings

_SECONDS = 30.0
_SOCKET_TIMEOUT = urllib3.Timeout(connect=5, read=10)
_REDIRECTS = 3
_HEADERS = {"User-Agent": "trident", "Accept-Encoding": "identity"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def read_media(url: str, param: str, settings: Settings) -> bytes:
    """Return the content of what `url` names; `param` is the field it stands in.

    Raises InvalidRequest, or PayloadTooLarge over the limit of an uploaded file.
    """
    scheme = url.partition(":")[0].lower()
    readers: dict[str, Callable[[str, Settings], bytes]] = {
        "data": _read_data,
        "base64": _read_base64,
        "file": _read_file,
        "http": _read_http,
        "https": _read_http,
    }
    try:
        if scheme not in readers:
            raise InvalidRequest("A URL begins with data:, base64://, file://, http:// or https://", code="invalid_url")
        content = readers[scheme](url, settings)
        if not content:
            raise InvalidRequest("The file is empty", code="empty_file")
        if len(content) > settings.max_upload_bytes:
            raise _too_large(settings)
    except (InvalidRequest, PayloadTooLarge) as error:
        error.param = param
        raise
    return content


def _read_data(url: str, settings: Settings) -> bytes:
    head, comma, data = url.partition(",")
    if not comma:
        raise InvalidRequest("A data: URL has a comma before its data", code="invalid_url")
    return _decode(data) if head.endswith(";base64") else unquote_to_bytes(data)


def _read_base64(url: str, settings: Settings) -> bytes:
    return _decode(url.partition("://")[2])


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The data is not base64", code="invalid_base64") from None


def _read_file(url: str, settings: Settings) -> bytes:
    parts = urlsplit(url)
    refused = InvalidRequest(
        "The file is not there, or not below a folder given with --allow-files", code="file_not_allowed"
    )
    try:
        path = Path(unquote(parts.path)).resolve()
        if parts.netloc not in ("", "localhost") or not any(
            path.is_relative_to(folder.resolve()) for folder in settings.allow_files
        ):
            raise refused
        # What it resolved to is what is opened: neither a link put there since, nor a pipe that would block.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise refused
            if about.st_size > settings.max_upload_bytes:
                raise _too_large(settings)
            return file.read(settings.max_upload_bytes + 1)
    except (OSError, ValueError):
        raise refused from None


def _read_http(url: str, settings: Settings) -> bytes:
    late = InvalidRequest(f"The URL did not answer in {_SECONDS:.0f} seconds", code="media_unreachable")
    with gevent.Timeout(_SECONDS, late):
        for _ in range(_REDIRECTS + 1):
            answer = _get(url, settings)
            if isinstance(answer, bytes):
                return answer
            url = answer
    raise InvalidRequest(f"The URL leads on more than {_REDIRECTS} times", code="media_unreachable")


def _get(url: str, settings: Settings) -> bytes | str:
    """Return what is there, or the URL it leads on to."""
    parts = _split(url)
    pool = _connect(parts, settings)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    try:
        response = pool.urlopen(
            "GET", target, headers=_HEADERS | {"Host": host}, redirect=False, retries=False, preload_content=False
        )
        location = response.headers.get("Location")
        if response.status in (301, 302, 303, 307, 308) and location:
            return urljoin(url, location)
        if response.status != 200:
            raise InvalidRequest(f"The URL answered with status {response.status}", code="media_unreachable")
        content = bytearray()
        while block := response.read1(1 << 18):
            content += block
            if len(content) > settings.max_upload_bytes:
                raise _too_large(settings)
        return bytes(content)
    except (urllib3.exceptions.HTTPError, OSError):
        raise InvalidRequest("The URL does not answer", code="media_unreachable") from None
    finally:
        pool.close()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError
        _ = parts.port  # raises for what is no port
    except ValueError:
        raise InvalidRequest("The URL is not one of a web server", code="invalid_url") from None
    return parts


def _connect(parts: SplitResult, settings: Settings) -> urllib3.HTTPConnectionPool:
    """Return connections to the very address that was looked at: a second look-up might give another one."""
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise InvalidRequest("The URL's host is not known", code="media_unreachable") from None
    if host not in settings.allow_hosts and not all(_is_public(address) for address in addresses):
        raise InvalidRequest(
            "The URL is of a private address, and its host not one given with --allow-hosts", code="host_not_allowed"
        )
    if secure:
        return urllib3.HTTPSConnectionPool(
            addresses[0], port, timeout=_SOCKET_TIMEOUT, server_hostname=host, assert_hostname=host
        )
    return urllib3.HTTPConnectionPool(addresses[0], port, timeout=_SOCKET_TIMEOUT)


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # Addresses that a gateway turns into IPv4's.
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    return address.is_global and not address.is_multicast


def _too_large(settings: Settings) -> PayloadTooLarge:
    return PayloadTooLarge(f"The file is over the limit of {settings.max_upload_bytes} bytes")
