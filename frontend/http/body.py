"""Reads JSON request bodies into validated pydantic models. An error about a field names that field."""

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import orjson
from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidRequest, PayloadTooLarge
from frontend.http.compression import decompressed
from frontend.services import services
from frontend.settings import Settings

Body = TypeVar("Body", bound="RequestBody")

MAX_LEVELS = 64
"""Maximum nesting of tool arguments and schemas. Real ones are nested less deeply, and recursive code can handle it."""

# A JSON string of at least 1,024 bytes, which may be a base64 file. The only escape in it is `\/`, because some JSON
# encoders escape slashes.
_LONG_STRING = re.compile(rb'"(?=[^"]{1024})(?:[^"\\]++|\\/)*+"')

# Patterns in pydantic's error messages, and the replacements that turn them into the style of our own messages.
_REWORDINGS = (
    (r"^Value error, ", ""),
    (r"^(?:Input|String|List|Tuple|Dictionary) should ", "must "),
    (r"a valid dictionary(?: or instance of \w+)?", "an object"),
    (r"a valid (?:list|tuple)", "an array"),
    (r" after validation", ""),
    (r", unable to .*$", ""),
    (r"^Extra inputs are not permitted$", "unknown field"),
    (r"^must match pattern '\\S'$", "must not be blank"),
    (r"^must match pattern '\^\[A-Za-z0-9_-\]\{1,64\}\$'$", "must be 1 to 64 letters, digits, '_' or '-'"),
    (r"^must match pattern '\^\[a-zA-Z0-9_-\]\+\$'$", "must be letters, digits, '_' or '-'"),
)

_TYPE_ERRORS = ("_type", "_parsing", "is_instance", "_from_float")


class RequestBody(BaseModel):
    """A JSON object in a request. Types are strict, as in OpenAI's API: a string is not accepted as a number.

    Unknown fields are ignored.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def read_body(model: type[Body], inline_size: Callable[[Any], int] | None = None) -> Body:
    """Return the request's JSON body as `model`. A top-level field that is null counts as omitted, as in OpenAI's API.

    For `inline_size`, see `read_json`. Raises InvalidRequest, PayloadTooLarge or UnsupportedEncoding.
    """
    fields = read_json(inline_size)
    try:
        return model.model_validate(
            {name: _without_fraction(value) for name, value in fields.items() if value is not None}
        )
    except ValidationError as error:
        raise invalid_field(error) from error


def read_json(inline_size: Callable[[Any], int] | None = None) -> dict[str, Any]:
    """Return the JSON object in the request's body.

    `inline_size` returns how many characters of a parsed body are base64 files. These characters do not count against
    the body limit. With `inline_size`, the whole body may exceed the body limit by 4/3 of the upload limit: the size of
    the largest file in base64. The limits apply to the decompressed body. Raises InvalidRequest, PayloadTooLarge or
    UnsupportedEncoding.
    """
    settings = services().settings
    limit = settings.max_body_bytes
    if inline_size:
        request.max_content_length = limit + settings.max_upload_bytes * 4 // 3
    try:
        content = decompressed(request.get_data(cache=False), limit, request.max_content_length or limit)
    except RequestEntityTooLarge:
        raise _too_large(settings, inline_size is not None) from None
    content = content.removeprefix(codecs.BOM_UTF8)
    if inline_size and len(content) > limit and len(content) - _long_strings(content) > limit:
        raise _too_large(settings, True)  # before parsing, which needs many times the memory of the body
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("The request body must be a JSON object", code="invalid_json")
    if inline_size and len(content) - inline_size(fields) > limit:
        raise PayloadTooLarge(f"The request body without its files exceeds the limit of {limit:,} bytes")
    return fields


def _without_fraction(value: Any) -> Any:
    """Return a number such as 10.0 as the integer 10, since JSON does not distinguish the two; else the value."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _too_large(settings: Settings, with_files: bool) -> PayloadTooLarge:
    limit, files = settings.max_body_bytes, settings.max_upload_bytes
    if with_files:
        return PayloadTooLarge(
            f"The request body exceeds the limit of {limit:,} bytes, or its files together that of {files:,} bytes"
        )
    return PayloadTooLarge(f"The request body exceeds the limit of {limit:,} bytes")


def reject_unsupported(fields: Mapping[str, Any], inert: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise InvalidRequest if `fields` has an unsupported field, unless its value is None or has no effect.

    `inert` maps the name of each unsupported field to the values with which the field has no effect.
    """
    for name, values in inert.items():
        value = fields.get(name)
        if value is not None and value not in values:
            supported = [orjson.dumps(each).decode() for each in values if each not in ([], {}, "")]
            rule = f"must be {' or '.join(supported)}" if supported else "is not supported"
            raise InvalidRequest(f"'{name}' {rule}", param=name, code="unsupported_parameter")


def levels_beyond(value: Any, maximum: int) -> bool:
    """Return whether a JSON value is nested deeper than `maximum` levels, where the innermost values count as a level.

    The function is iterative, so it is safe at any depth.
    """
    level = [value]
    for _ in range(maximum):
        level = [item for outer in level for item in _items(outer)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _long_strings(content: bytes) -> int:
    """Return how many bytes of a JSON text belong to strings that may be base64 files."""
    return sum(match.end() - match.start() for match in _LONG_STRING.finditer(content))


def invalid_field(error: ValidationError) -> InvalidRequest:
    """Return an InvalidRequest for the first error that pydantic found."""
    first = error.errors(include_url=False, include_context=False)[0]
    param, kind, message = _path(first["loc"]), first["type"], _reworded(first["msg"])
    if kind == "missing":
        return InvalidRequest(
            f"Invalid request: missing required parameter '{param}'", param=param, code="missing_parameter"
        )
    code = "invalid_type" if kind.endswith(_TYPE_ERRORS) else "invalid_value"
    if not param:
        return InvalidRequest(f"Invalid request: {message}", code=code)
    return InvalidRequest(f"Invalid value for '{param}': {message}", param=param, code=code)


def _reworded(message: str) -> str:
    """Return pydantic's message, reworded in the style of our own messages and with JSON's names for types."""
    for pattern, replacement in _REWORDINGS:
        message = re.sub(pattern, replacement, message)
    return message


def _path(location: tuple[Any, ...]) -> str:
    """Return a pydantic error's location in OpenAI's notation, `messages[0].content`, without tags (see `tag_of`)."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            path += f".{part}" if path else part
    return path


def tag_of(value: Any, default: str = "") -> str:
    """Return the tag that selects the class of an object in a pydantic union.

    The tag is the object's `type`, or `default` if it has none, in angle brackets. pydantic adds the tag to the
    locations of errors, and `_path` recognizes the tag by its angle brackets.
    """
    kind = (value.get("type") or default) if isinstance(value, dict) else default
    return f"<{kind}>" if isinstance(kind, str) else "<>"


def are_token_ids(value: Any) -> bool:
    """Return whether `value` is a list of 32-bit integers, possibly empty. The backend checks that the IDs exist."""
    return isinstance(value, list) and all(type(item) is int and -(2**31) <= item < 2**31 for item in value)
