"""The services that all views of a frontend process share. The application factory creates them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from flask import Response, after_this_request, current_app, g, request

from frontend.access_log import log_fields
from frontend.caller import client_address
from frontend.errors import Forbidden
from frontend.gateway.gateway import Gateway
from frontend.gateway.keys import ApiKey
from frontend.request_usage import request_usage
from frontend.settings import Settings
from frontend.storage.images import ImageStore
from frontend.storage.responses import ResponseStore
from frontend.triton.admission import AdmissionLimiter
from frontend.triton.instance import SERVICE_OF_TASK
from frontend.triton.model import Model
from frontend.triton.on_demand import OnDemand
from frontend.triton.registry import Registry
from frontend.triton.reload import Reloader
from frontend.triton.router import Router

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Services:
    """The services of one application."""

    settings: Settings
    router: Router
    registry: Registry
    reloader: Reloader
    admission: AdmissionLimiter
    images: ImageStore
    responses: ResponseStore
    on_demand: OnDemand | None
    """Loads models when they are first requested, if the setting `models_on_demand` is on."""
    gateway: Gateway
    shut_down: Callable[[], None]
    """Starts the shutdown of the frontend, and returns immediately. The launcher then stops the rest of Trident."""
    is_ready: Callable[[], bool]
    """Returns whether the server accepts requests: it is not shutting down."""


def require_model(name: str | None, *tasks: str) -> Model:
    """Return the model that `name` refers to; it must serve one of `tasks` (see Registry.require). Raises APIError.

    The request's API key must allow the model. The first call of a request admits the request within its limits, and
    the access log names its model.
    """
    model = services().registry.require(name, *tasks)
    log_fields().setdefault("model", model.id)
    _admit(model, name)
    if on_demand := services().on_demand:
        release = on_demand.hold(model.name)
        after_this_request(lambda response: _call_on_close(response, release))
        if model.state != "READY":  # it has been loaded
            model = services().registry.require(model.names[0], *tasks)
    return model


def _admit(model: Model, name: str | None) -> None:
    key: ApiKey | None = g.get("api_key")
    # Conversations are also answered by OCR and transcription models, and images are generated or edited.
    service = "imgEdit" if requested_service() == "imgEdit" else SERVICE_OF_TASK.get(model.task, "chat")
    # A name counts only if it stands for the model: with `unknown_model`, any name may have led to it.
    asked = (name,) if name and services().registry.names_of(name, model) else ()
    if key and not key.allows(service, (*model.names, *model.aliases, *asked)):
        raise Forbidden(f"The API key does not allow the model '{model.id}' for {service}", code="model_not_allowed")
    if "admission" not in g:
        names = (*model.names, *model.aliases)
        g.admission = services().gateway.gate.admit(key, service, model.id, client_address(), names)
        request_usage().lease = g.admission.lease


def requested_service() -> str:
    """Return the service that the current request's path belongs to, or an empty string."""
    service: str = g.get("service") or ""
    return service


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
