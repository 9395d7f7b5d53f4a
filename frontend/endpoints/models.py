"""GET /models and /models/{id}: the models that Triton has loaded."""

from typing import Any

from flask import Blueprint, Response

from frontend.errors import ModelNotFound, Unavailable
from frontend.http.authentication import api_key
from frontend.http.respond import json_response
from frontend.services import services
from frontend.triton.model import Model

blueprint = Blueprint("models", __name__)


@blueprint.get("/models")
def list_models() -> Response:
    """Return the loaded models. While Triton does not respond, return the last known models as UNAVAILABLE.

    If no models are known yet, the response is a 503 with the body that AHA's documentation prescribes (see
    docs/compatibility.md).
    """
    try:
        models = services().registry.models()
    except Unavailable as error:
        raise Unavailable(str(error), literal_body={"error": "model not initialized"}) from error
    return json_response({"object": "list", "data": [_describe(model) for model in models if _is_allowed(model)]})


@blueprint.get("/models/<path:name>")
def retrieve_model(name: str) -> Response:
    """Return one model, found by its ID, its name in Triton, its task or an alias."""
    model = services().registry.get(name)
    if not _is_allowed(model):
        raise ModelNotFound(name)
    return json_response(_describe(model))


def _is_allowed(model: Model) -> bool:
    """Return whether the request's API key may use a model."""
    key = api_key()
    return key is None or key.allows_model((*model.names, *model.aliases))


def _engine_capabilities(model: Model) -> list[str]:
    """Return what a chat model supports because of its engine and its chat template."""
    if model.task != "chat":
        return []
    found = ["tools", "structured_output"] if not model.uses_vllm else ["tools"]
    found += ["reasoning"] if model.parameters.get("reasoning") else []
    found += ["adapters"] if "adapters" in model.parameters and not model.adapter else []
    return found + (["logit_bias", "top_logprobs"] if model.has_all_logits else [])


def _describe(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "task": model.task,
        "capabilities": [*model.capabilities, *_engine_capabilities(model)],
        "state": model.state,
    }
