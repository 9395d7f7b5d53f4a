"""GET /metrics and /actuator: metrics for Prometheus, and health, information and metrics as in Spring Boot Actuator.

frontend/gateway/access.py says who may use them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from flask import Blueprint, Response, request

from frontend.errors import InvalidRequest, NotFound
from frontend.gateway import actuator, exposition
from frontend.http.respond import json_response
from frontend.services import public_address, services

blueprint = Blueprint("monitoring", __name__)

_Result = TypeVar("_Result")


@blueprint.get("/metrics")
@blueprint.get("/actuator/prometheus")
def get_metrics() -> Response:
    """Return the metrics in Prometheus' text format; with `?names=jairouter`, under JAiRouter's names."""
    names = request.args.get("names")
    if names not in (None, "jairouter"):
        raise InvalidRequest("'names' must be 'jairouter' or absent", param="names")
    if names:
        text = _in_thread_pool(exposition.render_jairouter)
    else:
        text = _in_thread_pool(exposition.render, services().router.triton_metrics())
    return Response(text, content_type=exposition.CONTENT_TYPE)


@blueprint.get("/actuator")
def get_links() -> Response:
    """Return the links to the endpoints of /actuator."""
    return json_response(actuator.links(public_address()))


@blueprint.get("/actuator/health")
@blueprint.get("/actuator/health/detailed")
def get_health() -> Response:
    """Return the health of the server and its components: 200 if all are UP, otherwise 503."""
    return _health_response(_health())


@blueprint.get("/actuator/health/liveness")
def get_liveness() -> Response:
    """Return 200: the process responds."""
    return _health_response({"status": "UP"})


@blueprint.get("/actuator/health/readiness")
def get_readiness() -> Response:
    """Return 200 if the server accepts requests, and 503 if it is starting or shutting down."""
    return _health_response({"status": "UP" if services().is_ready() else "OUT_OF_SERVICE"})


@blueprint.get("/actuator/health/<component>")
def get_component_health(component: str) -> Response:
    """Return the health of one component."""
    components = _health()["components"]
    if component not in components:
        raise NotFound(f"Unknown health component: {component}")
    return _health_response(components[component])


@blueprint.get("/actuator/info")
def get_info() -> Response:
    """Return the name and the version of the server."""
    return json_response(actuator.info())


@blueprint.get("/actuator/metrics")
def list_metrics() -> Response:
    """Return the names of the frontend's metrics."""
    return json_response({"names": actuator.metric_names(_in_thread_pool(exposition.collect))})


@blueprint.get("/actuator/metrics/<name>")
def retrieve_metric(name: str) -> Response:
    """Return the values of one metric. Each `?tag=KEY:VALUE` restricts them to the series with this label."""
    tags = _tags()
    found = actuator.describe_metric(_in_thread_pool(exposition.collect), name, tags)
    if found is None:
        raise NotFound(f"Unknown metric: {name}" if not tags else f"No series of the metric {name} has these tags")
    return json_response(found)


def _tags() -> dict[str, str]:
    tags = [tag.partition(":") for tag in request.args.getlist("tag")]
    if not all(key and separator for key, separator, _ in tags):
        raise InvalidRequest("Each 'tag' must have the form KEY:VALUE", param="tag")
    return {key: value for key, _, value in tags}


def _health() -> dict[str, Any]:
    return actuator.health(services().router.instances(), services().settings.cache)


def _health_response(content: dict[str, Any]) -> Response:
    response = json_response(content)
    response.status_code = 200 if content["status"] == "UP" else 503
    return response


def _in_thread_pool(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function in a native thread, so that it does not delay other requests. It has no Flask context there."""
    result: _Result = gevent.get_hub().threadpool.apply(function, arguments)
    return result
