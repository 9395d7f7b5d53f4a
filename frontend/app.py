"""The application factory: creates the services and registers blueprints, hooks and error handlers."""

from collections.abc import Callable

from flask import Flask

from frontend.access_log import register_access_log
from frontend.endpoints import BLUEPRINTS, UNVERSIONED
from frontend.errors import register_error_handlers
from frontend.gateway.gateway import Gateway
from frontend.http.accounting import register_accounting
from frontend.http.authentication import register_authentication, register_client_address
from frontend.http.multipart import FormRequest
from frontend.http.origins import register_origin_checks
from frontend.http.respond import register_response_start
from frontend.http.timing import register_timing
from frontend.http.tracing import register_tracing
from frontend.http.worker import register_http_errors
from frontend.instance_config import TritonAddress
from frontend.services import Services
from frontend.settings import Settings
from frontend.storage.expiring_files import ExpiringFiles
from frontend.storage.images import ImageStore
from frontend.storage.responses import ResponseStore
from frontend.triton.admission import AdmissionLimiter
from frontend.triton.client import TritonClient
from frontend.triton.on_demand import OnDemand
from frontend.triton.registry import Registry
from frontend.triton.reload import Reloader
from frontend.triton.router import Router


def create_app(
    settings: Settings, connect: Callable[[TritonAddress], TritonClient], shut_down: Callable[[], None]
) -> Flask:
    """Return the WSGI application. `connect` returns the client of a Triton; POST /shutdown calls `shut_down`."""
    app = Flask("trident", static_folder=None)
    app.request_class = FormRequest
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.strict_slashes = False
    registry = Registry(settings, connect)
    on_demand = OnDemand(settings, registry.upstreams[0].client, registry) if settings.models_on_demand else None
    if on_demand:
        on_demand.start()
    router = Router(settings, registry)
    gateway = Gateway(settings, registry, router)
    gateway.load()
    app.extensions["trident"] = Services(
        settings,
        router,
        registry,
        Reloader(settings, registry),
        AdmissionLimiter(),
        ImageStore(settings.image_folder, settings.image_seconds, settings.image_bytes),
        ResponseStore(ExpiringFiles(settings.response_folder, settings.response_seconds, settings.response_bytes)),
        on_demand,
        gateway,
        shut_down,
        lambda: not settings.draining_file.exists(),
    )
    register_client_address(app, settings)
    register_access_log(app, settings.log_format)
    register_timing(app)
    register_tracing(app, settings)
    register_error_handlers(app)
    register_http_errors(app)
    register_origin_checks(app, settings)
    register_authentication(app, settings, gateway)
    register_accounting(app, gateway)
    register_response_start(app)
    for blueprint in UNVERSIONED:
        app.register_blueprint(blueprint)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
        if blueprint.url_prefix is None:
            app.register_blueprint(blueprint, url_prefix="/v1", name=f"v1_{blueprint.name}")
    return app
