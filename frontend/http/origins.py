"""Which hosts and web pages may use the API: the `Host` header on loopback, and cross-origin requests (CORS)."""

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.datastructures import Headers

from frontend.errors import Forbidden
from frontend.settings import Settings

# The endpoints that pages of other origins may not use, whatever `allow_origins` is.
_PRIVATE_PATHS = ("/shutdown", "/v1/shutdown")
_PREFLIGHT_SECONDS = "600"
_EXPOSED_HEADERS = "X-Request-Id, Retry-After"


def register_origin_checks(app: Flask, settings: Settings) -> None:
    """Make `app` reject unknown hosts if it listens on loopback, and allow the origins in `allow_origins`."""
    if _is_loopback(settings.host):
        trusted = {*settings.trusted_hosts, urlsplit(settings.public_url or "").hostname or ""} - {""}

        @app.before_request
        def reject_unknown_host() -> None:
            # A web page whose host name resolves to 127.0.0.1 could otherwise read responses (DNS rebinding).
            host = _host_name(request.headers.get("Host", ""))
            if host and not _is_address(host) and not _is_loopback(host) and host not in trusted:
                raise Forbidden(f"Unknown host '{host[:100]}'; to allow it, use --trusted-hosts", code="unknown_host")

    if settings.allow_origins:

        @app.before_request
        def answer_preflight() -> Response | None:
            if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
                return None
            return Response(status=204)

        @app.after_request
        def add_cors_headers(response: Response) -> Response:
            if request.path not in _PRIVATE_PATHS:
                _add_cors_headers(response.headers, settings.allow_origins)
            return response


def is_foreign_page() -> bool:
    """Return whether the request comes from a web page of another origin, as far as the browser says so."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and origin != f"{request.scheme}://{request.headers.get('Host', '')}"


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


def _host_name(header: str) -> str:
    """Return the name or address in a `Host` header, in lower case, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")
