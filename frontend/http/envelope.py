"""Bodies of the management API. Responses are `{success, message, data, errorCode, timestamp}`; see errors.py too."""

from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from flask import Response, request
from pydantic import ConfigDict, ValidationError

from frontend.errors import InvalidRequest
from frontend.gateway.configuration import normalized
from frontend.http.body import MAX_LEVELS, RequestBody, invalid_field, levels_beyond, read_json

Body = TypeVar("Body", bound=RequestBody)


def envelope(data: Any, message: str = "", status: int = 200) -> Response:
    """Return a response with `data`."""
    content = {
        "success": True,
        "message": message or "OK",
        "data": data,
        "errorCode": None,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    return Response(orjson.dumps(content), status, content_type="application/json")


class ManagementBody(RequestBody):
    """A JSON object in a request to the management API. Unknown fields are rejected."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def read_management_body(model: type[Body]) -> Body:
    """Return the request's JSON body, in any spelling. Raises APIError."""
    body: Body = validated(model, {name: value for name, value in read_object().items() if value is not None})
    return body


def read_object(inside: str = "") -> dict[str, Any]:
    """Return the request's JSON object, in any spelling; `inside` names it (see normalized).

    The body needs its content type, which pages of other origins cannot send unasked. Raises APIError.
    """
    require_json()
    fields = read_json()
    if levels_beyond(fields, MAX_LEVELS):
        raise InvalidRequest(f"The body is nested deeper than {MAX_LEVELS} levels")
    try:
        found: dict[str, Any] = normalized(fields, inside)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    return found


def require_json() -> None:
    """Raise InvalidRequest unless the request says that its body is JSON."""
    if request.mimetype != "application/json":
        raise InvalidRequest("The header 'Content-Type' must be 'application/json'", code="invalid_content_type")


def validated(model: type[Any], fields: dict[str, Any], prefix: str = "", context: Any = None) -> Any:
    """Return an object of the configuration. Raises InvalidRequest with the field's name, after `prefix`."""
    try:
        return model.model_validate(fields, context=context)
    except ValidationError as error:
        found = invalid_field(error)
        if prefix and found.param:
            found.rename_field(f"{prefix}.{found.param}")
        raise found from None
