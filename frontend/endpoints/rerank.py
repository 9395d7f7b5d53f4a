"""POST /rerank, as AHA, Jina and others have it, and /v2/rerank in Cohere's shape."""

import uuid
from typing import Any

import numpy as np
from flask import Blueprint, Response
from pydantic import Field, field_validator

from frontend.errors import InvalidRequest
from frontend.http.body import RequestBody, read_body
from frontend.http.respond import json_response
from frontend.inference.batching import bounded, infer_rows
from frontend.services import require_model
from frontend.triton.registry import Model

blueprint = Blueprint("rerank", __name__)
v2 = Blueprint("rerank_v2", __name__, url_prefix="/v2")

_MAX_DOCUMENTS = 2048


class RerankRequest(RequestBody):
    """A query and the documents to put in the order of their relevance to it."""

    query: str
    documents: list[Any]
    model: str | None = None
    top_n: int | None = Field(None, ge=0)
    return_documents: bool | None = None
    raw_scores: bool | None = None
    truncate: bool | None = None

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str) -> str:
        if not query.strip():
            raise InvalidRequest("rerank query cannot be empty", param="query")
        return query

    @field_validator("documents")
    @classmethod
    def _check_documents(cls, documents: list[Any]) -> list[str]:
        """Accept strings and `{"text": …}`; the messages are AHA's."""
        if not documents:
            raise InvalidRequest("rerank documents cannot be empty", param="documents")
        if len(documents) > _MAX_DOCUMENTS:
            message = f"rerank takes at most {_MAX_DOCUMENTS} documents, not {len(documents)}"
            raise InvalidRequest(message, param="documents")
        texts: list[Any] = [document.get("text") if isinstance(document, dict) else document for document in documents]
        for number, text in enumerate(texts):
            where = f"documents[{number}]"
            if not isinstance(text, str):
                message = f"Invalid value for '{where}': a document is a string, or an object with a string 'text'"
                raise InvalidRequest(message, param=where, code="invalid_type")
            if not text:
                raise InvalidRequest("rerank documents cannot contain empty strings", param=where)
        return texts


@blueprint.post("/rerank")
def create_rerank() -> Response:
    """Answer the documents, the most relevant first, with scores from 0 to 1 (`raw_scores`: logits)."""
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
    """Answer as Cohere's v2 does: without the documents unless asked, and long ones are cut."""
    body = read_body(RerankRequest)
    model = require_model(body.model, "rerank")
    results, tokens = _rank(body, model, truncate=body.truncate is not False)
    if body.return_documents:
        for result in results:
            result["document"] = {"text": body.documents[result["index"]]}
    meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": tokens}}
    return json_response({"id": uuid.uuid4().hex, "results": results, "meta": meta})


def _rank(body: RerankRequest, model: Model, truncate: bool) -> tuple[list[dict[str, Any]], int]:
    """Return the best `top_n` as index and score, and how many tokens were read. Equal scores keep their order."""
    query = bounded(body.query, model, False, "query")
    documents = [bounded(text, model, truncate, f"documents[{i}]") for i, text in enumerate(body.documents)]
    columns = {"query": [query] * len(documents), "document": documents}
    output = infer_rows(model, columns, {"truncate": truncate}, "documents")
    logits = output["score"][:, 0].astype(np.float64)
    with np.errstate(over="ignore"):  # far below zero it comes out as 0, which is right
        scores = logits if body.raw_scores else 1 / (1 + np.exp(-logits))
    best = np.argsort(-logits, kind="stable")[: body.top_n]
    results = [{"index": int(i), "relevance_score": float(scores[i])} for i in best]
    return results, int(output["num_input_tokens"].sum())
