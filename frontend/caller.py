"""Who sent the current request: the client's address, the ID of its API key, and the trace that it belongs to."""

from flask import g, has_request_context, request


def client_address() -> str:
    """Return the address of the current request's client, which a trusted proxy may have reported."""
    return request.remote_addr or ""


def client_id() -> str:
    """Return what identifies the current request's client: the ID of its API key, or else its address."""
    return key_id() or client_address()


def key_id() -> str:
    """Return the ID of the current request's API key, or an empty string if it has none."""
    return g.get("key_id", "") if has_request_context() else ""


def traceparent() -> str:
    """Return the current request's trace for Triton (W3C Trace Context), or an empty string if it is not traced."""
    return g.get("traceparent", "") if has_request_context() else ""


def set_traceparent(text: str) -> None:
    """Record the current request's trace."""
    g.traceparent = text


def set_key_id(identifier: str) -> None:
    """Record the ID of the current request's API key."""
    g.key_id = identifier
