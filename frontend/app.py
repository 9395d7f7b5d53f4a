"""The application factory: creates the services and registers blueprints, hooks and error handlers."""

from collections.abc import Callable

from flask import Flask

from frontend.access_log import register_access_log
from frontend.endpoints import BLUEPRINTS, UNVERSIONED
from frontend.errors import register_error_handlers
from frontend.http.multipart import FormRequest
from frontend.http.origins import register_origin_checks
from frontend.http.respond import register_response_start
from frontend.http.worker import register_http_errors
from frontend.services import Services
from frontend.settings import Settings
from frontend.storage.expiring_files import ExpiringFiles
from frontend.storage.images import ImageStore
from frontend.storage.responses import ResponseStore
from frontend.triton.admission import AdmissionLimiter
from frontend.triton.client import TritonClient
from frontend.triton.on_demand import OnDemand
from frontend.triton.registry import Registry


def create_app(settings: Settings, triton: TritonClient, shut_down: Callable[[], None]) -> Flask:
    """Return the WSGI application, which calls models through `triton` and, after POST /shutdown, calls `shut_down`."""
    app = Flask("trident", static_folder=None)
    app.request_class = FormRequest
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.strict_slashes = False
    registry = Registry(settings, triton)
    on_demand = OnDemand(settings, triton, registry) if settings.models_on_demand else None
    if on_demand:
        on_demand.start()
    app.extensions["trident"] = Services(
        settings,
        triton,
        registry,
        AdmissionLimiter(),
        ImageStore(settings.image_folder, settings.image_seconds, settings.image_bytes),
        ResponseStore(ExpiringFiles(settings.response_folder, settings.response_seconds, settings.response_bytes)),
        on_demand,
        shut_down,
    )
    register_access_log(app, settings.log_format)
    register_error_handlers(app)
    register_http_errors(app)
    register_origin_checks(app, settings)
    register_response_start(app)
    for blueprint in UNVERSIONED:
        app.register_blueprint(blueprint)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
        if blueprint.url_prefix is None:
            app.register_blueprint(blueprint, url_prefix="/v1", name=f"v1_{blueprint.name}")
    return app
