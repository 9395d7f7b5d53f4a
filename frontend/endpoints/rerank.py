"""POST /rerank, in the format of AHA (see docs/compatibility.md) and Jina, and POST /v2/rerank, in Cohere's format."""

import uuid
from typing import Annotated, Any

import numpy as np
from flask import Blueprint, Response
from pydantic import Field, WithJsonSchema, field_validator

from frontend.errors import InvalidRequest
from frontend.http.body import RequestBody, read_body
from frontend.http.respond import json_response
from frontend.inference.batching import encode_within_limit, infer_rows
from frontend.services import require_model
from frontend.triton.registry import Model

blueprint = Blueprint("rerank", __name__)
v2 = Blueprint("rerank_v2", __name__, url_prefix="/v2")

_MAX_DOCUMENTS = 2048

_DOCUMENTS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}}


class RerankRequest(RequestBody):
    """A query, and the documents to rank by relevance to it."""

    query: str = Field(description="The query.")
    documents: Annotated[list[Any], WithJsonSchema(_DOCUMENTS_SCHEMA)] = Field(
        description="Up to 2,048 strings, or objects with a string `text`."
    )
    model: str | None = Field(None, description="ID, name or alias of the model. The default rerank model if omitted.")
    top_n: int | None = Field(
        None, ge=0, description="Return at most this many documents, the most relevant ones. All if omitted."
    )
    return_documents: bool | None = Field(
        None,
        description="Include the documents in the results. If omitted: true in `/v1/rerank`, false in `/v2/rerank`.",
    )
    raw_scores: bool = Field(False, description="Return logits instead of scores from 0 to 1.")
    truncate: bool | None = Field(
        None,
        description="Truncate documents that, with the query, exceed the model's context, instead of rejecting the "
        "request. If omitted: false in `/v1/rerank`, true in `/v2/rerank`.",
    )

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str) -> str:
        if not query.strip():
            raise InvalidRequest("rerank query cannot be empty", param="query")
        return query

    @field_validator("documents")
    @classmethod
    def _check_documents(cls, documents: list[Any]) -> list[str]:
        """Return the texts of the documents. The error message for an empty list follows AHA's documentation."""
        if not documents:
            raise InvalidRequest("rerank documents cannot be empty", param="documents")
        if len(documents) > _MAX_DOCUMENTS:
            message = f"Too many documents: {len(documents)} (limit {_MAX_DOCUMENTS})"
            raise InvalidRequest(message, param="documents")
        texts: list[Any] = [document.get("text") if isinstance(document, dict) else document for document in documents]
        for index, text in enumerate(texts):
            param = f"documents[{index}]"
            if not isinstance(text, str):
                message = f"Invalid value for '{param}': must be a string, or an object with a string 'text'"
                raise InvalidRequest(message, param=param, code="invalid_type")
            if not text:
                raise InvalidRequest("rerank documents cannot contain empty strings", param=param)
        return texts


@blueprint.post("/rerank")
def create_rerank() -> Response:
    """Return the documents ranked by relevance, with scores from 0 to 1, or logits if `raw_scores` is true."""
    body = read_body(RerankRequest)
    model = require_model(body.model, "rerank")
    results, tokens = _rank(body, model, truncate=bool(body.truncate))
    for result in results:
        result["score"] = result["relevance_score"]
        if body.return_documents is not False:
            result["document"] = body.documents[result["index"]]
    identity = {"id": f"rerank-{uuid.uuid4().hex}", "object": "list", "model": model.id}
    return json_response(identity | {"results": results, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})


@v2.post("/rerank")
def create_rerank_v2() -> Response:
    """Return the ranking in Cohere's v2 format. By default, documents are not returned, and long ones are truncated."""
    body = read_body(RerankRequest)
    model = require_model(body.model, "rerank")
    results, tokens = _rank(body, model, truncate=body.truncate is not False)
    if body.return_documents:
        for result in results:
            result["document"] = {"text": body.documents[result["index"]]}
    meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": tokens}}
    return json_response({"id": uuid.uuid4().hex, "results": results, "meta": meta})


def _rank(body: RerankRequest, model: Model, truncate: bool) -> tuple[list[dict[str, Any]], int]:
    """Return the index and score of the best `top_n` documents, best first, and the number of tokens.

    Documents with equal scores keep their order.
    """
    query = encode_within_limit(body.query, model, False, "query", "Shorten it: queries are not truncated.")
    documents = [encode_within_limit(text, model, truncate, f"documents[{i}]") for i, text in enumerate(body.documents)]
    columns = {"query": [query] * len(documents), "document": documents}
    params = [f"documents[{index}]" for index in range(len(documents))]
    output = infer_rows(model, columns, {"truncate": truncate}, params)
    logits = output["score"][:, 0].astype(np.float64)
    # For very low logits, exp overflows to infinity. The score is then 0, as it should be.
    with np.errstate(over="ignore"):
        scores = logits if body.raw_scores else 1 / (1 + np.exp(-logits))
    best = np.argsort(-logits, kind="stable")[: body.top_n]
    results = [{"index": int(i), "relevance_score": float(scores[i])} for i in best]
    return results, int(output["num_input_tokens"].sum())
