"""Downloads from web servers with public addresses, and from hosts that the operator allows."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import gevent
import gevent.lock
import urllib3

from frontend.errors import InvalidRequest, Overloaded, file_too_large
from frontend.settings import Settings

_SECONDS = 30.0
_SOCKET_TIMEOUT = urllib3.Timeout(connect=5, read=10)
_MAX_REDIRECTS = 3
_MAX_URL = 16_384

# The characters of a URL that are not escaped. All others, such as letters that are not ASCII, are escaped as UTF-8.
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=-._~|^`{}\\"

_HEADERS = {"User-Agent": "trident", "Accept-Encoding": "identity"}

# Maximum downloads at a time per process. Each download resolves its host name on one of gevent's native threads.
# Without a limit, a slow name server could occupy all of these threads.
_download_slots = gevent.lock.BoundedSemaphore(16)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


class _Target(NamedTuple):
    """The server and path of a URL. `host` is encoded as IDNA; `path` includes the query."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def fetch(url: str, settings: Settings) -> bytes:
    """Return the content at `url`. Raises InvalidRequest, PayloadTooLarge, Overloaded."""
    if not _download_slots.acquire(blocking=False):
        raise Overloaded("Too many downloads are in progress")
    try:
        with gevent.Timeout(_SECONDS) as timer:
            return _follow(url, settings)
    except gevent.Timeout as late:
        if late is not timer:
            raise
        raise _unreachable(f"The download did not finish within {_SECONDS:.0f} seconds") from None
    finally:
        _download_slots.release()


def _follow(url: str, settings: Settings) -> bytes:
    for _ in range(_MAX_REDIRECTS + 1):
        result = _get(_parse(url), settings)
        if isinstance(result, bytes):
            return result
        try:
            url = urljoin(url, result)
        except ValueError:
            raise _unreachable("Invalid redirect") from None
    raise _unreachable(f"Too many redirects (limit {_MAX_REDIRECTS})")


def _parse(url: str) -> _Target:
    try:
        if len(url) > _MAX_URL:
            raise ValueError
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError
        path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL_CHARACTERS)
        name = host if ":" in host else host.encode("idna").decode()
        return _Target(secure, name, parts.port or (443 if secure else 80), path)
    except ValueError:
        raise InvalidRequest("Invalid http:// or https:// URL", code="invalid_url") from None


def _get(target: _Target, settings: Settings) -> bytes | str:
    """Return the content (bytes) or the target of a redirect (str). Tries the host's addresses until one connects."""
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
    raise _unreachable("The URL could not be downloaded")


def _read(response: urllib3.BaseHTTPResponse, settings: Settings) -> bytes | str:
    location = response.headers.get("Location")
    if response.status in (301, 302, 303, 307, 308) and location:
        return _decoded(location)
    if response.status != 200:
        raise _unreachable(f"The URL returned status {response.status}")
    content = bytearray()
    while block := response.read1(1 << 18):
        content += block
        if len(content) > settings.max_upload_bytes:
            raise file_too_large(settings.max_upload_bytes)
    return bytes(content)


def _decoded(header: str) -> str:
    """Return a header's text. HTTP libraries read headers as Latin-1, but letters that are not ASCII are in UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except ValueError:
        return header


def _addresses(target: _Target, settings: Settings) -> Iterator[str]:
    """Yield the host's addresses.

    Raises InvalidRequest if the host has no address, or if one of its addresses is not public and the operator has not
    allowed the host. Callers must connect to these addresses: a second lookup might return different addresses.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _unreachable("The host of the URL could not be resolved") from None
    addresses = [str(entry[4][0]) for entry in found]
    if target.host not in settings.allow_hosts and not all(map(is_public, addresses)):
        raise InvalidRequest(
            "The host of the URL has a non-public address and is not listed in --allow-hosts", code="host_not_allowed"
        )
    yield from addresses


def _pool(target: _Target, address: str) -> urllib3.HTTPConnectionPool:
    if not target.secure:
        return urllib3.HTTPConnectionPool(address, target.port, timeout=_SOCKET_TIMEOUT)
    return urllib3.HTTPSConnectionPool(
        address, target.port, timeout=_SOCKET_TIMEOUT, server_hostname=target.host, assert_hostname=target.host
    )


def is_public(text: str) -> bool:
    """Return whether an address is on the public internet, not on this machine or a private network."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # Some IPv6 addresses contain an IPv4 address, which is where the packets go.
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address not in _GLOBAL_IPV6:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast


def _unreachable(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="media_unreachable")
