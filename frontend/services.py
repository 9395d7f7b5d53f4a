"""The services that all views share, created once by the application factory."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flask import current_app, request

from frontend.access_log import log_fields
from frontend.settings import Settings
from frontend.storage.images import ImageStore
from frontend.storage.responses import ResponseStore
from frontend.triton.admission import AdmissionLimiter
from frontend.triton.client import Call
from frontend.triton.http_client import Inference
from frontend.triton.registry import Model, Registry
from frontend.triton.tensors import Value

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Triton(Protocol):
    """The part of the Triton client that views use."""

    def stream(
        self, model: str, inputs: Mapping[str, Value], *, request_id: str, timeout: float, client: str | None = None
    ) -> Call: ...
    def infer(
        self,
        model: str,
        inputs: Mapping[str, Sequence[bytes]],
        *,
        request_id: str,
        timeout: float,
        parameters: Mapping[str, bool | str],
    ) -> Inference: ...


@dataclass(frozen=True)
class Services:
    """The application's services."""

    settings: Settings
    triton: Triton
    registry: Registry
    admission: AdmissionLimiter
    images: ImageStore
    responses: ResponseStore
    shut_down: Callable[[], None]
    """Starts shutting down all of Trident and returns immediately."""


def require_model(name: str | None, *tasks: str) -> Model:
    """Return the model that `name` refers to for one of `tasks`, and add it to the access log. Raises APIError."""
    model = services().registry.require(name, *tasks)
    log_fields().setdefault("model", model.id)
    return model


def public_address() -> str:
    """Return this server's base URL for clients: the configured public URL, or the address of the current request."""
    settings = services().settings
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = request.headers.get("Host", "")
    return f"{request.scheme}://{host if _HOST.fullmatch(host) else f'{settings.host}:{settings.port}'}"


def services() -> Services:
    """Return the current application's services."""
    found: Services = current_app.extensions["trident"]
    return found
