"""POST /embeddings (OpenAI's createEmbedding)."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray
from pydantic import Field, WithJsonSchema, field_validator

from frontend.aliases import DEFAULT_ALIASES
from frontend.errors import InvalidRequest
from frontend.http.body import RequestBody, are_token_ids, read_body
from frontend.http.respond import json_response
from frontend.inference.batching import encode_within_limit, infer_rows
from frontend.services import require_model
from frontend.triton.model import Model

blueprint = Blueprint("embeddings", __name__)

Array = NDArray[np.float32]

_MAX_INPUTS = 2048

_TEXT = [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]
_INPUT_SCHEMA: dict[str, Any] = {"anyOf": [*_TEXT, *({"type": "array", "items": kind} for kind in _TEXT)]}


class EmbeddingRequest(RequestBody):
    """The request body of createEmbedding, with text-embeddings-inference's `truncate` and Cohere's `input_type`."""

    input: Annotated[Any, WithJsonSchema(_INPUT_SCHEMA)] = Field(
        description="A string, a list of token IDs, or a list of up to 2,048 strings or lists of token IDs. Token IDs "
        "are used unchanged: no prompt and no special tokens are added."
    )
    model: str | None = Field(
        None, description="ID, name or alias of the model. The default embedding model if omitted."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Encoding of the vectors. `base64` encodes each vector as little-endian float32."
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Shorten each vector to its first `dimensions` values and normalize it. The maximum and the "
        "default are the model's number of dimensions.",
    )
    truncate: bool = Field(
        False, description="Truncate texts that exceed the model's context instead of rejecting them."
    )
    input_type: Literal["query", "document", "search_query", "search_document", "passage"] = Field(
        "document",
        description="Whether the texts are queries (`query`, `search_query`) or documents (the other values). Some "
        "models expect different prompts before queries and documents.",
    )
    user: str | None = Field(None, description="Ignored.")

    @field_validator("input", mode="plain")
    @classmethod
    def _check_input(cls, value: Any) -> Any:
        """Accept a string, a list of token IDs, a list of strings, or a list of lists of token IDs.

        AHA's documentation prescribes the error message for other types (see docs/compatibility.md).
        """
        if not isinstance(value, str | list):
            raise InvalidRequest("embedding input must be a string or an array of strings", param="input")
        if not value:
            raise InvalidRequest("embedding input cannot be empty", param="input")
        items = value if _is_list(value) else [value]
        if len(items) > _MAX_INPUTS:
            raise InvalidRequest(f"Too many inputs: {len(items)} (limit {_MAX_INPUTS})", param="input")
        if not (all(type(item) is str for item in items) or all(map(are_token_ids, items))):
            message = "embedding input must contain only strings, or only arrays of token IDs"
            raise InvalidRequest(message, param="input", code="invalid_type")
        if "" in items or [] in items:
            raise InvalidRequest("embedding input cannot contain empty strings or arrays", param="input")
        return value

    @property
    def inputs(self) -> dict[str, Any]:
        """The texts or lists of token IDs, in order, keyed by their paths in the request (`input` or `input[0]`)."""
        if _is_list(self.input):
            return {f"input[{index}]": item for index, item in enumerate(self.input)}
        return {"input": self.input}

    def columns(self, model: Model) -> dict[str, list[bytes]]:
        """Return the input tensor's name with one value per row: a text, or token IDs as little-endian int32.

        Raises InvalidRequest if a text is too long.
        """
        inputs = self.inputs
        if isinstance(next(iter(inputs.values())), str):
            texts = [encode_within_limit(text, model, self.truncate, path) for path, text in inputs.items()]
            return {"text": texts}
        return {"token_ids": [np.array(ids, "<i4").tobytes() for ids in inputs.values()]}

    def parameters(self) -> dict[str, bool | str]:
        """Return the request parameters that apply to all rows."""
        kind = "query" if self.input_type in ("query", "search_query") else "document"
        return {"truncate": self.truncate, "input_type": kind}


@blueprint.post("/embeddings")
def create_embedding() -> Response:
    """Return one vector per item of the input, in order."""
    body = read_body(EmbeddingRequest)
    model = require_model(body.model, "embedding")
    if body.model in DEFAULT_ALIASES and are_token_ids(next(iter(body.inputs.values()))):
        raise InvalidRequest(
            f"The token IDs are those of the tokenizer of '{body.model}', but the model is {model.id}. Send text: for "
            "example, LangChain's OpenAIEmbeddings does so with check_embedding_ctx_length=False",
            param="input",
        )
    _check_dimensions(body.dimensions, model)
    result = infer_rows(model, body.columns(model), body.parameters(), list(body.inputs))
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


def _is_list(value: Any) -> bool:
    """Return whether `value` is a list of inputs, not one input."""
    return isinstance(value, list) and not are_token_ids(value)


def _check_dimensions(dimensions: int | None, model: Model) -> None:
    maximum = model.int_parameter("dimensions")
    if dimensions is not None and dimensions > maximum:
        raise InvalidRequest(f"'dimensions' must be at most {maximum} for this model", param="dimensions")


def _shorten(vectors: Array, dimensions: int | None) -> Array:
    """Return the first `dimensions` values of each vector, normalized to length 1.

    If `dimensions` is None or the vectors already have this many values, return `vectors` unchanged.
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    vectors = np.ascontiguousarray(vectors[:, :dimensions])
    shorter: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return shorter


def _unchanged(vector: Array) -> Array:
    """Return the vector, not a list: orjson serializes NumPy arrays without creating a Python float per number."""
    return vector


def _encode_base64(vector: Array) -> str:
    """Return the vector as little-endian float32 in base64, which is OpenAI's format."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()
