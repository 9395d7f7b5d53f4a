"""Which hosts and web pages may use the API: the `Host` header on loopback, and cross-origin requests (CORS)."""

import functools
import ipaddress
import re
import socket
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.datastructures import Headers

from frontend.access_log import log_fields
from frontend.addresses import read_address
from frontend.errors import Forbidden
from frontend.settings import Settings

# The endpoints that pages of other origins may not use, whatever `allow_origins` is.
_PRIVATE_PATHS = ("/shutdown", "/v1/shutdown", "/metrics", "/actuator")
_PRIVATE_PREFIXES = ("/actuator/", "/api/", "/v1/organization/")
# A request with one of them has come through a proxy.
_FORWARDING_HEADERS = frozenset(
    {"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via", "CF-Connecting-IP"}
)
_PREFLIGHT_SECONDS = "600"
_EXPOSED_HEADERS = "X-Request-Id, Retry-After, Server-Timing"
_HOST = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>[^:\[\]/@\s]+))(?::\d*)?")


def register_origin_checks(app: Flask, settings: Settings) -> None:
    """Make `app` reject unknown hosts, and allow the origins in `allow_origins`.

    Hosts are checked if the server listens on a loopback address, or if `trusted_hosts` is set.
    """
    if settings.trusted_hosts or _is_loopback(settings.host):

        @app.before_request
        def reject_unknown_host() -> None:
            if not is_known_host(settings):
                host = request.headers["Host"][:100]
                log_fields()["host"] = host
                raise Forbidden(f"Unknown host '{host}'; to allow it, use --trusted-hosts", code="unknown_host")

    if settings.allow_origins:

        @app.before_request
        def answer_preflight() -> Response | None:
            if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
                return None
            return Response(status=204)

        @app.after_request
        def add_cors_headers(response: Response) -> Response:
            if not _is_private(request.path):
                _add_cors_headers(response.headers, settings.allow_origins)
            return response


def is_known_host(settings: Settings) -> bool:
    """Return whether the request's `Host` is an IP address, a name of this machine, or a name in the settings.

    A web page whose host name resolves to 127.0.0.1 is of the same origin as its own requests to the server, so that it
    could read the responses (DNS rebinding). Its requests have that name in `Host`.
    """
    header = request.headers.get("Host", "")
    if not header:
        return True  # browsers always send the header
    match = _HOST.fullmatch(header)
    if not match:
        return False
    host = (match["address"] or match["name"]).lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost") or _is_address(host) or host in settings.trusted_hosts:
        return True
    return host in (settings.host.lower(), urlsplit(settings.public_url or "").hostname)


def is_foreign_page() -> bool:
    """Return whether the request comes from a web page of another origin, as far as the browser says so."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and origin != f"{request.scheme}://{request.headers.get('Host', '')}"


def is_local_program(settings: Settings) -> bool:
    """Return whether a program on this machine sent the request.

    Return False for a request that a proxy forwarded, or that a web page of another origin sent.
    """
    peer = request.remote_addr or "0.0.0.0"  # noqa: S104 - a missing address is not local
    # If the server listens on one address, programs on the same machine have that address.
    is_local = is_loopback_address(peer) or peer in _addresses(settings.host)
    forwarded = any(name in request.headers for name in _FORWARDING_HEADERS)
    return is_local and not forwarded and not is_foreign_page() and is_known_host(settings)


def is_loopback_address(text: str) -> bool:
    """Return whether an IP address is a loopback address. It may have a zone, or be an IPv4 address in IPv6."""
    return read_address(text).is_loopback


@functools.cache
def _addresses(host: str) -> frozenset[str]:
    """Return the addresses of a host, given as a name or an address."""
    try:
        return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(host, None))
    except OSError:
        return frozenset()


def _is_private(path: str) -> bool:
    return path.rstrip("/") in _PRIVATE_PATHS or path.startswith(_PRIVATE_PREFIXES)


def _add_cors_headers(headers: Headers, allowed: tuple[str, ...]) -> None:
    origin = request.headers.get("Origin", "")
    headers.add("Vary", "Origin")
    if not origin or not ("*" in allowed or origin in allowed):
        return
    headers["Access-Control-Allow-Origin"] = "*" if "*" in allowed else origin
    headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
    if method := request.headers.get("Access-Control-Request-Method"):
        headers["Access-Control-Allow-Methods"] = method
        headers["Access-Control-Allow-Headers"] = request.headers.get("Access-Control-Request-Headers", "")
        headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    """Return whether a host, given as a name or an address, has only loopback addresses."""
    try:
        return all(is_loopback_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None))
    except OSError:
        return False
