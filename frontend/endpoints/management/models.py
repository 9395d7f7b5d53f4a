"""/api/models: the models, and loading, unloading and reloading them at each Triton."""

from collections import Counter
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from frontend.http.authentication import actor
from frontend.http.envelope import ManagementBody, envelope, read_management_body
from frontend.services import services
from frontend.settings import SERVICES
from frontend.triton.instance import SERVICE_OF_TASK

blueprint = Blueprint("management_models", __name__, url_prefix="/api/models")


class ModelRequest(ManagementBody):
    """A model to load, unload or load again."""

    model: str = Field(max_length=300, description="ID, name or alias of the model; to load it, its name in Triton.")


@blueprint.get("")
def list_models() -> Response:
    """Return the models, as JAiRouter lists them."""
    found = [
        {
            "id": model.id,
            "object": "model",
            "created": model.created,
            "owned_by": model.owned_by,
            "service_type": SERVICE_OF_TASK.get(model.task, "chat"),
            "adapter": "triton",
            "state": model.state,
        }
        for model in services().registry.models()
    ]
    return envelope({"object": "list", "data": found})


@blueprint.get("/stats")
def get_stats() -> Response:
    """Return the numbers of services, instances and models."""
    instances = services().router.instances()
    models: dict[str, set[str]] = {}
    for instance in instances:
        models.setdefault(instance.service, set()).add(instance.model.name)
    stats: dict[str, Any] = {
        "totalServices": len(SERVICES),
        "totalInstances": len(instances),
        "totalModels": len({instance.model.name for instance in instances}),
        "instancesByService": dict(Counter(instance.service for instance in instances)),
        "modelsByService": {service: sorted(names) for service, names in models.items()},
        "serviceTypes": list(SERVICES),
    }
    return envelope(stats)


@blueprint.post("/reload")
def reload_model() -> Response:
    """Load a model again, one instance after another, and respond when all have it."""
    model = services().registry.get(read_management_body(ModelRequest).model)
    services().gateway.audit("model.reload", model.name, actor())
    instances = services().reloader.reload(model.name)
    return envelope({"model": model.id, "instances": instances}, "The model is loaded again")


@blueprint.post("/load")
def load_model() -> Response:
    """Load a model at each Triton whose repository has it, and respond when they have loaded it."""
    name = read_management_body(ModelRequest).model
    services().gateway.audit("model.load", name, actor())
    return envelope({"model": name, "instances": services().reloader.load(name)}, "The model is loaded")


@blueprint.post("/unload")
def unload_model() -> Response:
    """Unload a model at each Triton that has it. Requests in progress finish first."""
    model = services().registry.get(read_management_body(ModelRequest).model)
    services().gateway.audit("model.unload", model.name, actor())
    return envelope({"model": model.id, "instances": services().reloader.unload(model.name)}, "The model is unloaded")
