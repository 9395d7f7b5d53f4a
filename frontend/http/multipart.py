"""Reads multipart forms: the text fields into validated pydantic models, the files into bytes."""

from typing import Any, NamedTuple, TypeVar

from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from frontend.errors import InvalidRequest, PayloadTooLarge, UnsupportedEncoding, file_too_large
from frontend.http.body import invalid_field
from frontend.http.compression import content_encoding
from frontend.services import services

Form = TypeVar("Form", bound="FormBody")

# A form may have this many bytes in addition to its files. Flask limits each text field to 500,000 bytes.
_FORM_BYTES = 1_000_000


class FormBody(BaseModel):
    """The text fields of a form. A form field `name[]` becomes the list `name`."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FileField(NamedTuple):
    """A file field of a form: `name` is its name in the form, `what` the name of the file in error messages."""

    name: str
    what: str


def read_form(model: type[Form], file: FileField, files: int = 1) -> Form:
    """Return the text fields of the request's form as `model`. Raises InvalidRequest, PayloadTooLarge or
    UnsupportedEncoding.

    The form may be 1 MB larger than `files` files of maximum size. An error about the file has `file.name` as `param`.
    """
    if request.mimetype != "multipart/form-data":
        # werkzeug would read and parse a whole application/x-www-form-urlencoded form, however large its fields are.
        message = f"{file.what} is required: send the request as multipart/form-data"
        raise InvalidRequest(message, param=file.name, code="missing_file")
    if content_encoding():
        raise UnsupportedEncoding("Forms must not have a Content-Encoding")
    limit = files * services().settings.max_upload_bytes + _FORM_BYTES
    request.max_content_length = limit
    try:
        fields: dict[str, Any] = {
            name.removesuffix("[]"): values if name.endswith("[]") else values[-1]
            for name, values in request.form.lists()
        }
    except RequestEntityTooLarge:
        # werkzeug raises the same exception for text fields that are too many or too large.
        if request.content_length is not None and request.content_length <= limit:
            raise PayloadTooLarge("The form has too many text fields, or its text fields are too large") from None
        if files == 1:
            raise file_too_large(services().settings.max_upload_bytes, file.name) from None
        raise PayloadTooLarge(f"The form exceeds the limit of {limit:,} bytes") from None
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid_field(error) from error


def read_upload(file: FileField) -> bytes:
    """Return the content of an uploaded file, and close the file. Raises InvalidRequest or PayloadTooLarge."""
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
