"""POST /rerank, in the format of AHA (see docs/compatibility.md) and Jina, and POST /v2/rerank, in Cohere's format."""

import uuid
from typing import Annotated, Any

import numpy as np
import orjson
from flask import Blueprint, Response
from pydantic import Field, WithJsonSchema, field_validator

from frontend.errors import InvalidRequest
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond, read_body
from frontend.http.respond import json_response
from frontend.inference.batching import encode_within_limit, infer_rows
from frontend.services import require_model
from frontend.triton.model import Model

blueprint = Blueprint("rerank", __name__)
v2 = Blueprint("rerank_v2", __name__, url_prefix="/v2")

_MAX_DOCUMENTS = 2048

# The logit of a document of white space only, which the model does not see. It is below the logits of all models.
_BLANK_LOGIT = -100.0

_DOCUMENTS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}}


class RerankRequest(RequestBody):
    """A query, and the documents to rank by relevance to it."""

    query: str = Field(description="The query.")
    documents: Annotated[list[Any], WithJsonSchema(_DOCUMENTS_SCHEMA)] = Field(
        description="Up to 2,048 strings, or objects with a string `text` or with the fields in `rank_fields`. "
        "Documents of white space only are ranked last."
    )
    rank_fields: list[str] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Fields of the documents to rank by, in this order. Fields that a document lacks are skipped. "
        "`text` if omitted. Requires documents that are objects.",
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
        description="Truncate documents, and queries too, that exceed the model's context, instead of rejecting the "
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
    def _check_documents(cls, documents: list[Any]) -> list[Any]:
        """Check the number of documents. The error message for an empty list follows AHA's documentation."""
        if not documents:
            raise InvalidRequest("rerank documents cannot be empty", param="documents")
        if len(documents) > _MAX_DOCUMENTS:
            message = f"Too many documents: {len(documents)} (limit {_MAX_DOCUMENTS})"
            raise InvalidRequest(message, param="documents")
        return documents

    def texts(self) -> list[str]:
        """Return the text of each document. Raises InvalidRequest."""
        texts = []
        for index, document in enumerate(self.documents):
            param = f"documents[{index}]"
            if levels_beyond(document, MAX_LEVELS):
                raise InvalidRequest(f"'{param}' is nested deeper than {MAX_LEVELS} levels", param=param)
            text = _text(document, self.rank_fields)
            if text is None:
                kinds = "a string, or an object with a string 'text'"
                if self.rank_fields:
                    kinds = "an object with at least one of the fields in 'rank_fields'"
                message = f"Invalid value for '{param}': must be {kinds}"
                raise InvalidRequest(message, param=param, code="invalid_type")
            if not text:
                raise InvalidRequest("rerank documents cannot contain empty strings", param=param)
            texts.append(text)
        return texts


def _text(document: Any, fields: list[str] | None) -> str | None:
    """Return the text to rank a document by, or None if the document has none. Other values than strings are JSON."""
    if fields is None:
        text = document.get("text") if isinstance(document, dict) else document
        return text if isinstance(text, str) else None
    if not isinstance(document, dict) or not any(field in document for field in fields):
        return None
    values = [document[field] for field in dict.fromkeys(fields) if document.get(field) is not None]
    return "\n".join(value if isinstance(value, str) else orjson.dumps(value).decode() for value in values) or " "


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
            document = body.documents[result["index"]]
            result["document"] = document if isinstance(document, dict) else {"text": document}
    meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": tokens}}
    return json_response({"id": uuid.uuid4().hex, "results": results, "meta": meta})


def _rank(body: RerankRequest, model: Model, truncate: bool) -> tuple[list[dict[str, Any]], int]:
    """Return the index and score of the best `top_n` documents, best first, and the number of tokens.

    Documents with equal scores keep their order. Documents of white space only are the last ones.
    """
    query = encode_within_limit(body.query, model, truncate, "query")
    texts = {f"documents[{index}]": text for index, text in enumerate(body.texts())}
    documents = {
        param: encode_within_limit(text, model, truncate, param) for param, text in texts.items() if text.strip()
    }
    logits, tokens = np.full(len(texts), _BLANK_LOGIT), 0
    if documents:
        columns = {"query": [query] * len(documents), "document": list(documents.values())}
        output = infer_rows(model, columns, {"truncate": truncate}, list(documents))
        logits[[param in documents for param in texts]] = output["score"][:, 0]
        tokens = int(output["num_input_tokens"].sum())
    # For very low logits, exp overflows to infinity. The score is then 0, as it should be.
    with np.errstate(over="ignore"):
        scores = logits if body.raw_scores else 1 / (1 + np.exp(-logits))
    best = np.argsort(-logits, kind="stable")[: body.top_n]
    return [{"index": int(i), "relevance_score": float(scores[i])} for i in best], tokens
