"""Which paths need which API key."""

from typing import Literal

Access = Literal["open", "inference", "management", "monitoring", "shutdown"]
"""Who may use a path.

open: everybody. inference: a user key, or everybody while there are no keys. management: an admin key, or to read it a
read-only key, or programs on this machine while there is no admin key. monitoring: an admin or read-only key, or
everybody while there are no keys. shutdown: programs on this machine, or an admin key if remote shutdown is allowed.
"""

# The page of the documentation has nothing secret, and browsers cannot send a key for it. Its document needs one.
_OPEN = ("/", "/health", "/v1/health", "/actuator/health", "/docs", "/swagger-ui.html")
# Files of generated images have random names, and clients fetch them without headers.
_OPEN_PREFIXES = ("/docs/", "/actuator/health/", "/images/files/", "/v1/images/files/")
_SHUTDOWN = ("/shutdown", "/v1/shutdown")
_METRICS = ("/metrics", "/actuator/prometheus")
_DOCUMENTS = ("/openapi.json", "/v3/api-docs", "/v3/api-docs.yaml")


def access_of(path: str, open_metrics: bool = False) -> Access:
    """Return who may use a path, given as the pattern of its route."""
    if path in _OPEN or path.startswith(_OPEN_PREFIXES) or (open_metrics and path in _METRICS):
        return "open"
    if path in _SHUTDOWN:
        return "shutdown"
    if path in _METRICS or path in _DOCUMENTS:
        return "monitoring"
    if path == "/actuator" or path.startswith(("/api/", "/actuator/", "/v1/organization/")):
        return "management"
    return "inference"
