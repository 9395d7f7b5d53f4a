"""Finds out whose request it is: the client's address behind trusted proxies, and its API key."""

import ipaddress
import re

from flask import Flask, g, request

from frontend import metrics
from frontend.addresses import Networks, is_in
from frontend.caller import client_address, set_key_id
from frontend.errors import Forbidden, RateLimited, StoreUnavailable, Unauthorized
from frontend.gateway.access import Access, access_of
from frontend.gateway.gateway import Gateway
from frontend.gateway.keys import ApiKey
from frontend.http.origins import is_local_program
from frontend.settings import Settings

# An IPv4 address, or an IPv6 address in brackets, which may have a port; or an IPv6 address.
_HOP = re.compile(r"([0-9.]+)(?::[0-9]{1,5})?|\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)")
_NOBODY = "0.0.0.0"  # noqa: S104 - the address of a client that the proxy does not name
_KEY = re.compile(r"tr-[A-Za-z0-9_-]{20,}")
_QUERY_NAMES = ("api_key", "api-key", "apikey", "key", "token", "access_token")
_MANAGEMENT_CLOSED = "Management is allowed only from the machine that Trident runs on, as there is no admin key"
# The same text for all reasons, so that it does not tell which keys exist.
_INVALID = "The API key is not valid"


def api_key() -> ApiKey | None:
    """Return the API key of the current request, if it needed one."""
    found: ApiKey | None = g.get("api_key")
    return found


def actor() -> str:
    """Return who makes the current request, for the audit log: the ID of the key, or `local`."""
    key = api_key()
    return key.id if key else "local"


def register_client_address(app: Flask, settings: Settings) -> None:
    """Make `request.remote_addr` the address that trusted proxies report."""
    proxies = tuple(map(ipaddress.ip_network, settings.trusted_proxies))
    if not proxies:
        return

    @app.before_request
    def set_address() -> None:
        request.remote_addr = _real_address(proxies)


def register_authentication(app: Flask, settings: Settings, gateway: Gateway) -> None:
    """Make `app` check the API key of each request."""
    access: dict[str, Access] = {}

    @app.before_request
    def authenticate() -> None:
        if request.url_rule is None:
            return  # the path is unknown
        path = request.url_rule.rule
        needed = access.get(path)
        if needed is None:
            needed = access[path] = access_of(path, settings.open_metrics)
        if needed != "open":
            _authenticate(needed, settings, gateway)


def _authenticate(needed: Access, settings: Settings, gateway: Gateway) -> None:
    text = _given_key(gateway)
    if not gateway.is_loaded:
        raise StoreUnavailable("The store of API keys does not respond; retry later")
    key = _find(text, settings, gateway) if text else None
    if key is None:
        return _require_no_key(needed, bool(text), settings, gateway)
    if not _may(key, needed):
        metrics.record_rejected_key("forbidden")
        raise Forbidden(_reason(key, needed), code="insufficient_permissions")
    g.api_key, g.is_authenticated = key, True
    if key.role != "local":
        set_key_id(key.id)
    return None


def _require_no_key(needed: Access, has_key: bool, settings: Settings, gateway: Gateway) -> None:
    """Raise APIError unless the request is allowed without a valid key. `has_key`: it has an invalid one.

    While no keys are configured, any key is accepted, as many clients send one.
    """
    if gateway.keys.is_empty or (needed == "management" and not has_key and not gateway.keys.has_admin):
        if needed == "management" and not is_local_program(settings):
            raise Forbidden(_MANAGEMENT_CLOSED, code="management_closed")
        g.is_authenticated = True
    elif needed != "shutdown" or has_key:
        raise _rejected(has_key, gateway)


def _find(text: str, settings: Settings, gateway: Gateway) -> ApiKey | None:
    """Return the key with this text if it is valid for this request."""
    key = gateway.keys.find(text)
    if key is None or not key.is_valid(client_address()):
        return None
    return None if key.role == "local" and not is_local_program(settings) else key


def _may(key: ApiKey, needed: Access) -> bool:
    if key.role == "local":
        return True
    if needed == "inference":
        return key.role == "user"
    if needed == "monitoring":
        return key.role in ("admin", "readonly")
    return key.role == "admin" or (
        key.role == "readonly" and needed == "management" and request.method in ("GET", "HEAD")
    )


def _reason(key: ApiKey, needed: Access) -> str:
    if needed == "inference":
        return "Admin and read-only keys cannot be used for inference; use a user key"
    return f"This needs an admin key, not a {'read-only' if key.role == 'readonly' else key.role} key"


def _rejected(has_key: bool, gateway: Gateway) -> Unauthorized | RateLimited:
    if not has_key:
        metrics.record_rejected_key("missing")
        return Unauthorized(
            "An API key is required, in the header 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
            code="missing_api_key",
        )
    if not gateway.admits_wrong_key(client_address()):
        metrics.record_rejected_key("too_many")
        return RateLimited("Too many requests with invalid API keys from this address; retry later", 60)
    metrics.record_rejected_key("invalid")
    return Unauthorized(_INVALID)


def _given_key(gateway: Gateway) -> str:
    """Return the key in the request's headers, or an empty string. Raises Unauthorized if it is in the URL."""
    if request.args and any(
        _KEY.match(value) or (name.lower() in _QUERY_NAMES and not gateway.keys.is_empty)
        for name, value in request.args.items(multi=True)
    ):
        metrics.record_rejected_key("invalid")
        raise Unauthorized("API keys are not accepted in URLs, which are logged; use a header", code="key_in_url")
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    other = request.headers.get("X-API-Key", "").strip()
    if bearer and other and bearer != other:
        metrics.record_rejected_key("invalid")
        raise Unauthorized("The headers 'Authorization' and 'X-API-Key' have different keys")
    return bearer or other


def _real_address(proxies: Networks) -> str | None:
    """Return the last address in X-Forwarded-For that is not a trusted proxy's, if a trusted proxy sent the request."""
    address = request.remote_addr
    hops = [hop.strip() for value in request.headers.getlist("X-Forwarded-For") for hop in value.split(",")]
    while hops and address is not None and is_in(address, proxies):
        address = _address_of(hops.pop())
    return address


def _address_of(hop: str) -> str:
    """Return the address in an entry of X-Forwarded-For, without its port; without an address, that of nobody."""
    match = _HOP.fullmatch(hop)
    try:
        return str(ipaddress.ip_address(next(filter(None, match.groups())) if match else ""))
    except ValueError:
        return _NOBODY
