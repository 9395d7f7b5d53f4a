"""From a JSON body to its validated model, with errors that name the field."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import orjson
from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidRequest, PayloadTooLarge
from frontend.services import services
from frontend.settings import Settings

Body = TypeVar("Body", bound="RequestBody")

MAX_LEVELS = 64
"""Of lists and objects: deeper than any schema or arguments, and shallow enough for whatever walks through them."""

# Slashes may be escaped in it.
_LONG_STRING = re.compile(rb'"(?=[^"]{1024})(?:[^"\\]++|\\/)*+"')

_TYPE_ERRORS = ("_type", "_parsing", "is_instance", "_from_float")


class RequestBody(BaseModel):
    """A JSON body. Types are strict, as OpenAI's; fields that are not known are ignored, as by other servers."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def read_body(model: type[Body], inline_size: Callable[[Any], int] | None = None) -> Body:
    """Return the request's JSON body as `model`. Raises InvalidRequest or PayloadTooLarge.

    `inline_size` tells how many characters of a parsed body are files in base64: those have the limit of a file.
    """
    settings = services().settings
    limit = settings.max_body_bytes
    if inline_size:
        request.max_content_length = limit + settings.max_upload_bytes * 4 // 3
    try:
        content = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise _too_large(settings, inline_size is not None) from None
    if inline_size and len(content) > limit and len(content) - _long_strings(content) > limit:
        raise _too_large(settings, True)  # unparsed: small values take many times their room
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("The request body must be a JSON object", code="invalid_json")
    if inline_size and len(content) - inline_size(fields) > limit:
        raise _too_large(settings, True)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid_field(error) from error


def _too_large(settings: Settings, with_files: bool) -> PayloadTooLarge:
    limit, files = settings.max_body_bytes, settings.max_upload_bytes
    if with_files:
        return PayloadTooLarge(f"The request body is over {limit} bytes, or the files in it together over {files}")
    return PayloadTooLarge(f"The request body is over the limit of {limit} bytes")


def reject_unsupported(fields: Mapping[str, Any], inert: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse fields that are not served, each unless its value is one of those that ask for nothing.

    Raises InvalidRequest.
    """
    for name, values in inert.items():
        value = fields.get(name)
        if value is not None and value not in values:
            raise InvalidRequest(f"'{name}' is not supported", param=name, code="unsupported_parameter")


def levels_beyond(value: Any, maximum: int) -> bool:
    """Tell whether lists and objects are nested deeper than so many levels. Does not recurse itself."""
    level = [value]
    for _ in range(maximum):
        level = [item for outer in level for item in _items(outer)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _long_strings(content: bytes) -> int:
    """Return how many bytes of a JSON text are strings that can be files in base64."""
    return sum(match.end() - match.start() for match in _LONG_STRING.finditer(content))


def invalid_field(error: ValidationError) -> InvalidRequest:
    """Return pydantic's first complaint as our error."""
    first = error.errors(include_url=False, include_context=False)[0]
    param, kind, message = _path(first["loc"]), first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return InvalidRequest(
            f"Invalid request: missing required parameter '{param}'", param=param, code="missing_parameter"
        )
    code = "invalid_type" if kind.endswith(_TYPE_ERRORS) else "invalid_value"
    return InvalidRequest(f"Invalid value for '{param}': {message}", param=param, code=code)


def _path(location: tuple[Any, ...]) -> str:
    """Write a location as OpenAI does: `messages[0].content`. Tags of unions, in angle brackets, are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            path += f".{part}" if path else part
    return path


def tag_of(value: Any, default: str = "") -> str:
    """Return the tag, in the angle brackets that paths leave out, of an object of a union: its `type`."""
    kind = (value.get("type") or default) if isinstance(value, dict) else default
    return f"<{kind}>" if isinstance(kind, str) else "<>"


def are_token_ids(value: Any) -> bool:
    """Return whether this is one text as token ids: integers of 32 bits. Only the model knows which of them exist."""
    return isinstance(value, list) and all(type(item) is int and -(2**31) <= item < 2**31 for item in value)
