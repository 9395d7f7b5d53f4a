"""From a request's body to its validated model, with errors that name the field."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import orjson
from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidRequest, PayloadTooLarge, file_too_large
from frontend.services import services

Body = TypeVar("Body", bound="RequestBody")
Form = TypeVar("Form", bound="FormBody")

MAX_LEVELS = 64
"""Of lists and objects: deeper than any schema or arguments, and shallow enough for whatever walks through them."""

# What a form may have beside its file.
_FORM_BYTES = 1_000_000

# Slashes may be escaped in it.
_LONG_STRING = re.compile(rb'"(?=[^"]{1024})(?:[^"\\]++|\\/)*+"')

_TYPE_ERRORS = ("_type", "_parsing", "is_instance", "_from_float")


class RequestBody(BaseModel):
    """A JSON body. Types are strict, as OpenAI's; fields that are not known are ignored, as by other servers."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class FormBody(BaseModel):
    """The fields of a form, which are all text; a name that ends in [] stands for a list."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FileField(NamedTuple):
    """A form's file: its field, and what it is called where it is missing."""

    name: str
    what: str


def read_form(model: type[Form], file: FileField, files: int = 1) -> Form:
    """Return the form's fields, but for the files, of which it may have so many, as `model`.

    Raises InvalidRequest or PayloadTooLarge.
    """
    if request.mimetype != "multipart/form-data":
        # Of a form in another encoding werkzeug bounds neither the fields nor the time it takes to read them.
        raise InvalidRequest(f"{file.what} is required, as multipart/form-data", param=file.name, code="missing_file")
    request.max_content_length = files * services().settings.max_upload_bytes + _FORM_BYTES
    try:
        fields: dict[str, Any] = {
            name.removesuffix("[]"): values if name.endswith("[]") else values[-1]
            for name, values in request.form.lists()
        }
    except RequestEntityTooLarge:
        raise file_too_large(services().settings.max_upload_bytes, file.name) from None
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from error


def read_upload(file: FileField) -> bytes:
    """Return the content of a form's file, and forget it. Raises InvalidRequest or PayloadTooLarge."""
    upload = request.files.get(file.name)
    if upload is None:
        raise InvalidRequest(f"{file.what} is required", param=file.name, code="missing_file")
    limit = services().settings.max_upload_bytes
    content = upload.stream.read(limit + 1)
    upload.close()
    if len(content) > limit:
        raise file_too_large(limit, file.name)
    if not content:
        raise InvalidRequest(f"The {file.what.lower()} is empty", param=file.name, code="empty_file")
    return content


def read_body(model: type[Body], inline_size: Callable[[Any], int] | None = None) -> Body:
    """Return the request's JSON body as `model`. Raises InvalidRequest or PayloadTooLarge.

    `inline_size` tells how many characters of a parsed body are files in base64: those have the limit of a file.
    """
    limit = services().settings.max_body_bytes
    too_large = PayloadTooLarge(f"The request body is over the limit of {limit} bytes")
    if inline_size:
        maximum = services().settings.max_upload_bytes
        too_large = PayloadTooLarge(
            f"The request body is over {limit} bytes, or the files in it together over {maximum}"
        )
        request.max_content_length = limit + maximum * 4 // 3
    try:
        content = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    if inline_size and len(content) > limit and len(content) - _long_strings(content) > limit:
        raise too_large  # unparsed: small values take many times their room
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("The request body must be a JSON object", code="invalid_json")
    if inline_size and len(content) - inline_size(fields) > limit:
        raise too_large
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from error


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


def _explain(error: ValidationError) -> InvalidRequest:
    """Turn pydantic's first complaint into ours."""
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
