"""Reads multipart forms: the text fields into validated pydantic models, the files into bytes."""

import re
from typing import Any, NamedTuple, TypeVar

from flask import Request, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug import formparser
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Event, MultipartDecoder
from werkzeug.sansio.multipart import Field as TextField
from werkzeug.sansio.multipart import File as FileEvent

from frontend.errors import InvalidRequest, PayloadTooLarge, UnsupportedEncoding, file_too_large
from frontend.http.body import invalid_field
from frontend.http.compression import content_encoding
from frontend.services import services

Form = TypeVar("Form", bound="FormBody")

# A form may have this many bytes in addition to its files. Flask limits each text field to 500,000 bytes.
_FORM_BYTES = 1_000_000


# The fields that are files even without a file name, if they have the Content-Type of a file.
_FILE_NAMES = frozenset(("file", "image", "image[]", "mask"))

# An item of a list: `name[]` or `name[0]`.
_LIST_ITEM = re.compile(r"(.+)\[([0-9]{0,4})\]")


class Decoder(MultipartDecoder):
    """werkzeug's decoder, which accepts file names in any encoding, and files without a file name."""

    def next_event(self) -> Event:
        """Return the next event. A form field without a name raises ValueError."""
        event = super().next_event()
        if isinstance(event, TextField | FileEvent) and not event.name:
            raise ValueError("a part of the form has no name")
        kind = event.headers.get("Content-Type", "text/") if isinstance(event, TextField) else ""
        if isinstance(event, TextField) and event.name in _FILE_NAMES and not kind.startswith("text/"):
            return FileEvent(event.name, "", event.headers)
        return event

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        """Return the headers of a part. A name that is not UTF-8 does not matter, so it is read as Latin-1."""
        try:
            return super()._parse_headers(data)
        except UnicodeDecodeError:
            return super()._parse_headers(bytes(data).decode("latin-1").encode())


formparser.MultipartDecoder = Decoder  # type: ignore[attr-defined]  # werkzeug has no setting for it


class FormParser(formparser.FormDataParser):
    """werkzeug's form parser, which raises ValueError for a malformed form instead of returning an empty one."""

    def __init__(self, **options: Any):
        super().__init__(**options | {"silent": False})


class FormRequest(Request):
    """Flask's request, with our form parser."""

    form_data_parser_class = FormParser


class FormBody(BaseModel):
    """The text fields of a form. Form fields `name[]`, or `name[0]`, `name[1]` and so on, become the list `name`."""

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
        fields = _fields()
    except RequestEntityTooLarge:
        # werkzeug raises the same exception for text fields that are too many or too large.
        if request.content_length is not None and request.content_length <= limit:
            raise PayloadTooLarge("The form has too many text fields, or its text fields are too large") from None
        if files == 1:
            raise file_too_large(services().settings.max_upload_bytes, file.name) from None
        raise PayloadTooLarge(f"The form exceeds the limit of {limit:,} bytes") from None
    except ValueError as error:
        raise InvalidRequest(f"The form is malformed or incomplete: {error}", code="invalid_form") from error
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid_field(error) from error


def _fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, values in request.form.lists():
        item = _LIST_ITEM.fullmatch(name)
        if item:
            fields[item[1]] = (fields[item[1]] if isinstance(fields.get(item[1]), list) else []) + values
        else:
            fields[name] = values[-1]
    return fields


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
