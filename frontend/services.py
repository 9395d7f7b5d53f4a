"""The services that all views of a frontend process share. The application factory creates them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flask import Response, after_this_request, current_app, request

from frontend.access_log import log_fields
from frontend.settings import Settings
from frontend.storage.images import ImageStore
from frontend.storage.responses import ResponseStore
from frontend.triton.admission import AdmissionLimiter
from frontend.triton.client import Call
from frontend.triton.http_client import Inference
from frontend.triton.on_demand import OnDemand
from frontend.triton.registry import Model, Registry
from frontend.triton.tensors import Value

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Triton(Protocol):
    """The methods of the Triton client that start requests to models."""

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
    """The services of one application."""

    settings: Settings
    triton: Triton
    registry: Registry
    admission: AdmissionLimiter
    images: ImageStore
    responses: ResponseStore
    on_demand: OnDemand | None
    """Loads models when they are first requested, if the setting `models_on_demand` is on."""
    shut_down: Callable[[], None]
    """Starts the shutdown of the frontend, and returns immediately. The launcher then stops the rest of Trident."""


def require_model(name: str | None, *tasks: str) -> Model:
    """Return the model that `name` refers to; it must serve one of `tasks` (see Registry.require). Raises APIError.

    The access log names the first model that this function returns for a request.
    """
    model = services().registry.require(name, *tasks)
    if on_demand := services().on_demand:
        release = on_demand.hold(model.name)
        after_this_request(lambda response: _call_on_close(response, release))
        if model.state != "READY":  # it has been loaded
            model = services().registry.require(model.names[0], *tasks)
    log_fields().setdefault("model", model.id)
    return model


def _call_on_close(response: Response, release: Callable[[], None]) -> Response:
    response.call_on_close(release)
    return response


def public_address() -> str:
    """Return this server's base URL for clients: `public_url` if set, otherwise a URL with the request's Host header.

    If that header is missing or malformed, the URL has the host and port that the server listens on.
    """
    settings = services().settings
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = request.headers.get("Host", "")
    return f"{request.scheme}://{host if _HOST.fullmatch(host) else settings.address}"


def services() -> Services:
    """Return the current application's services."""
    found: Services = current_app.extensions["trident"]
    return found
