"""Responses that are the picture itself, for requests whose Accept header prefers an image to JSON."""

from collections.abc import Sequence

from flask import Response, request
from pydantic import BaseModel

from frontend.errors import InvalidRequest

_JSON = "application/json"


def wanted_format(fields: BaseModel, formats: Sequence[str], count: int, param: str) -> str | None:
    """Return the format of the picture that the client wants as the response, or None if the response is JSON.

    `fields` are the request's fields, among them `output_format`, one of `formats`. `count` is the number of pictures,
    which the field `param` sets. Raises InvalidRequest if the response cannot be one picture of that format, and the
    client does not accept JSON.
    """
    accepted = request.accept_mimetypes
    best = accepted.best_match([_JSON, *(f"image/{format}" for format in formats)], _JSON)
    if best == _JSON:
        return None
    chosen = best.removeprefix("image/")
    if "output_format" in fields.model_fields_set:
        chosen = str(fields.output_format)  # type: ignore[attr-defined]
    problems = {
        "stream": ("cannot be true", getattr(fields, "stream", False)),
        param: ("must be 1 image", count != 1),
        "output_format": (f"is {chosen}, which the header does not contain", not accepted.quality(f"image/{chosen}")),
    }
    for name, (problem, is_true) in problems.items():
        if is_true and accepted.quality(_JSON):
            return None
        if is_true:
            raise InvalidRequest(f"'{name}' {problem} if the Accept header asks for an image", param=name)
    return chosen


def picture_response(content: bytes, format: str) -> Response:
    """Return a picture as the response."""
    headers = {"Vary": "Accept", "X-Content-Type-Options": "nosniff"}
    return Response(content, content_type=f"image/{format}", headers=headers)
