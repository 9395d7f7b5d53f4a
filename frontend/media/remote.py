"""Files on web servers: of public addresses, and of hosts that the operator allows."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import gevent
import gevent.lock
import urllib3

from frontend.errors import InvalidRequest, Overloaded, file_too_large
from frontend.settings import Settings

_SECONDS = 30.0
_SOCKET_TIMEOUT = urllib3.Timeout(connect=5, read=10)
_REDIRECTS = 3
_HEADERS = {"User-Agent": "trident", "Accept-Encoding": "identity"}

# Names are looked up on native threads, which a slow name server holds and others need.
_under_way = gevent.lock.BoundedSemaphore(16)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


class _Target(NamedTuple):
    """Where a URL leads, the host's name as it goes over the wire."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def fetch(url: str, settings: Settings) -> bytes:
    """Return what a web server has at `url`. Raises InvalidRequest, PayloadTooLarge, Overloaded."""
    if not _under_way.acquire(blocking=False):
        raise Overloaded("Too many files are being fetched")
    try:
        with gevent.Timeout(_SECONDS) as timer:
            return _follow(url, settings)
    except gevent.Timeout as late:
        if late is not timer:
            raise
        raise _unreachable(f"The URL did not answer in {_SECONDS:.0f} seconds") from None
    finally:
        _under_way.release()


def _follow(url: str, settings: Settings) -> bytes:
    for _ in range(_REDIRECTS + 1):
        answer = _get(_parse(url), settings)
        if isinstance(answer, bytes):
            return answer
        try:
            url = urljoin(url, answer)
        except ValueError:
            break
    raise _unreachable(f"The URL leads on to nowhere, or more than {_REDIRECTS} times")


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path.encode("ascii")
        name = host if ":" in host else host.encode("idna").decode()
        return _Target(secure, name, parts.port or (443 if secure else 80), path)
    except ValueError:
        raise InvalidRequest("The URL is not one of a web server", code="invalid_url") from None


def _get(target: _Target, settings: Settings) -> bytes | str:
    """Return what is there, or where it leads on to. Tries the host's addresses one after the other."""
    for address in _addresses(target, settings):
        pool = _pool(target, address)
        try:
            response = pool.urlopen(
                "GET",
                target.path,
                headers=_HEADERS | {"Host": target.header},
                redirect=False,
                retries=False,
                preload_content=False,
            )
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            continue
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            break
        try:
            return _read(response, settings)
        except (urllib3.exceptions.HTTPError, OSError):
            break
        finally:
            response.close()
            pool.close()
    raise _unreachable("The URL does not answer")


def _read(response: urllib3.BaseHTTPResponse, settings: Settings) -> bytes | str:
    location = response.headers.get("Location")
    if response.status in (301, 302, 303, 307, 308) and location:
        return location
    if response.status != 200:
        raise _unreachable(f"The URL answered with status {response.status}")
    content = bytearray()
    while block := response.read1(1 << 18):
        content += block
        if len(content) > settings.max_upload_bytes:
            raise file_too_large(settings.max_upload_bytes)
    return bytes(content)


def _addresses(target: _Target, settings: Settings) -> Iterator[str]:
    """Yield the addresses that were looked at, to be connected to as they are: a second look-up might give others."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _unreachable("The URL's host is not known") from None
    addresses = [str(entry[4][0]) for entry in found]
    if target.host not in settings.allow_hosts and not all(map(is_public, addresses)):
        raise InvalidRequest(
            "The URL is of a private address, and its host not one given with --allow-hosts", code="host_not_allowed"
        )
    yield from addresses


def _pool(target: _Target, address: str) -> urllib3.HTTPConnectionPool:
    if not target.secure:
        return urllib3.HTTPConnectionPool(address, target.port, timeout=_SOCKET_TIMEOUT)
    return urllib3.HTTPSConnectionPool(
        address, target.port, timeout=_SOCKET_TIMEOUT, server_hostname=target.host, assert_hostname=target.host
    )


def is_public(text: str) -> bool:
    """Tell whether an address is one of the internet's, and not of this machine or the networks around it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # Addresses that a gateway turns into IPv4's.
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address not in _GLOBAL_IPV6:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast


def _unreachable(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="media_unreachable")
