"""POST /embeddings (OpenAI's createEmbedding)."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray
from pydantic import Field, WithJsonSchema, field_validator

from frontend.errors import InvalidRequest
from frontend.http.body import RequestBody, are_token_ids, read_body
from frontend.http.respond import json_response
from frontend.inference.batching import encode_within_limit, infer_rows
from frontend.services import require_model
from frontend.triton.registry import Model

blueprint = Blueprint("embeddings", __name__)

Array = NDArray[np.float32]

_MAX_INPUTS = 2048

_TEXT = [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]
_INPUT_SCHEMA: dict[str, Any] = {"anyOf": [*_TEXT, *({"type": "array", "items": kind} for kind in _TEXT)]}


class EmbeddingRequest(RequestBody):
    """The request body of createEmbedding, with text-embeddings-inference's `truncate` and Cohere's `input_type`."""

    input: Annotated[Any, WithJsonSchema(_INPUT_SCHEMA)] = Field(
        description="A string, token IDs, or a list of up to 2,048 of either. Token IDs are used unchanged."
    )
    model: str | None = Field(
        None, description="ID, name or alias of the model. The default embedding model if omitted."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Encoding of the vectors; `base64` is of little-endian float32."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Keep this many dimensions and normalize the vector. At most the model's own number."
    )
    truncate: bool = Field(
        False, description="Truncate texts that exceed the model's context instead of rejecting them."
    )
    input_type: Literal["query", "document", "search_query", "search_document", "passage"] = Field(
        "document", description="Selects the model's prompt, for models that embed queries and documents differently."
    )
    user: str | None = Field(None, description="Ignored.")

    @field_validator("input", mode="plain")
    @classmethod
    def _check_input(cls, value: Any) -> Any:
        """Accept a string, token IDs, or a list of either. The first two messages are prescribed by AHA's document."""
        if not isinstance(value, str | list):
            raise InvalidRequest("embedding input must be a string or an array of strings", param="input")
        if not value:
            raise InvalidRequest("embedding input cannot be empty", param="input")
        items = [value] if isinstance(value, str) or are_token_ids(value) else value
        if len(items) > _MAX_INPUTS:
            raise InvalidRequest(f"embedding input has {len(items)} items (limit {_MAX_INPUTS})", param="input")
        if not (all(type(item) is str for item in items) or all(map(are_token_ids, items))):
            raise InvalidRequest("embedding input must contain only strings", param="input", code="invalid_type")
        if "" in items or [] in items:
            raise InvalidRequest("embedding input cannot be empty", param="input")
        return items

    def columns(self, model: Model) -> dict[str, list[bytes]]:
        """Return the model's input tensor: texts, or token IDs as little-endian int32."""
        if isinstance(self.input[0], str):
            texts = enumerate(self.input)
            return {"text": [encode_within_limit(text, model, self.truncate, f"input[{i}]") for i, text in texts]}
        return {"token_ids": [np.array(ids, "<i4").tobytes() for ids in self.input]}

    def parameters(self) -> dict[str, bool | str]:
        """Return the request parameters that apply to all rows."""
        kind = "query" if self.input_type in ("query", "search_query") else "document"
        return {"truncate": self.truncate, "input_type": kind}


@blueprint.post("/embeddings")
def create_embedding() -> Response:
    """Return one vector per text, in the order of the texts."""
    body = read_body(EmbeddingRequest)
    model = require_model(body.model, "embedding")
    _check_dimensions(body.dimensions, model)
    result = infer_rows(model, body.columns(model), body.parameters(), "input")
    vectors = _shorten(result["embedding"], body.dimensions)
    encode = _encode_base64 if body.encoding_format == "base64" else _unchanged
    tokens = int(result["num_input_tokens"].sum())
    content = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": encode(row)} for i, row in enumerate(vectors)],
        "model": model.id,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json_response(content)


def _check_dimensions(dimensions: int | None, model: Model) -> None:
    maximum = model.int_parameter("dimensions")
    if dimensions is not None and dimensions > maximum:
        raise InvalidRequest(f"'dimensions' exceeds the {maximum} of '{model.id}'", param="dimensions")


def _shorten(vectors: Array, dimensions: int | None) -> Array:
    """Return the first `dimensions` of each vector, normalized to length 1."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    vectors = np.ascontiguousarray(vectors[:, :dimensions])
    shorter: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return shorter


def _unchanged(vector: Array) -> Array:
    """Return the vector: orjson serializes arrays without creating a Python float per number."""
    return vector


def _encode_base64(vector: Array) -> str:
    """Return the vector as base64 of little-endian float32, as OpenAI does."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()
