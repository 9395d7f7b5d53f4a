"""POST /images/remove_background.

The request is a JSON body with images in its messages, or a form with the file `image`. The JSON body and the response
to it have AHA's format (see docs/compatibility.md).
"""

from collections.abc import Mapping
from typing import Literal

from flask import Blueprint, Response, request
from pydantic import BaseModel, Field

from contract.options import BackgroundRemovalOptions
from contract.tensors import BACKGROUND_REMOVAL
from frontend.endpoints.images.picture import picture_response, wanted_format
from frontend.endpoints.media_completion import media_completion
from frontend.errors import InvalidRequest
from frontend.generation.messages import Media, Message, find_media, inline_media_size
from frontend.http.body import RequestBody, read_body
from frontend.http.multipart import FileField, FormBody, read_form, read_upload
from frontend.http.respond import json_response
from frontend.inference.response_stream import ResponseStream, cancel_all, start_call
from frontend.media.sources import read_media
from frontend.services import require_model, services
from frontend.triton.model import Model
from frontend.triton.routed_call import RoutedCall

blueprint = Blueprint("background", __name__)

_FILE = FileField("image", "Image file")
_LAST = BACKGROUND_REMOVAL.last_output


class RemovalFields(BaseModel):
    """The fields that the JSON body and the form share."""

    model: str | None = Field(
        None, description="ID, name or alias of the model. The default background removal model if omitted."
    )
    output_format: Literal["png", "webp"] = Field("png", description="File format of the resulting RGBA images.")
    refine: bool = Field(False, description="Align the edge of the foreground with the edges in the image.")


class RemovalForm(RemovalFields, FormBody):
    """The form fields, except the file."""


class RemovalRequest(RemovalFields, RequestBody):
    """The JSON body."""

    messages: list[Message] = Field(
        min_length=1, description="Messages with 1 to 16 images in total; all other content is ignored."
    )


@blueprint.post("/images/remove_background")
def remove_background() -> Response:
    """Return the images without their backgrounds.

    The response to a JSON body is a chat completion with the images in order or, if the Accept header asks for that,
    the only image itself. The response to a form is an image file.
    """
    if request.mimetype == "multipart/form-data":
        form = read_form(RemovalForm, _FILE)
        model = require_model(form.model, "background_removal")
        call = _send(model, read_upload(_FILE), BackgroundRemovalOptions(form.output_format, form.refine))
        return picture_response(_receive(call, {}), form.output_format)
    model, kind, calls, is_picture = _send_all()
    images = []
    try:
        while calls:
            call, param = calls.pop(0)
            images.append(_receive(call, {"image": param}))
    except BaseException:
        cancel_all((call for call, _ in calls), _LAST)
        raise
    if is_picture:
        return picture_response(images[0], kind)
    return json_response(media_completion(model.id, "image", f"image/{kind}", images))


def _send_all() -> tuple[Model, str, list[tuple[RoutedCall, str]], bool]:
    """Send all images to the model. Return the model, the file format, the calls, and whether to return a picture.

    Each call comes with the path of its image in the request, for error responses. This is a separate function so that
    the request body, which may be large, is freed when this function returns.
    """
    body = read_body(RemovalRequest, inline_media_size)
    model = require_model(body.model, "background_removal")
    media = list(find_media(body.messages, "image"))
    if not media:
        raise InvalidRequest("'messages' must contain an image", param="messages", code="missing_image")
    picture_format = wanted_format(body, ("png", "webp"), len(media), "messages")
    format = picture_format or body.output_format
    options = BackgroundRemovalOptions(format, body.refine)
    calls: list[tuple[RoutedCall, str]] = []
    try:
        calls.extend((_send(model, _read(image), options), image.param) for image in media)
    except BaseException:
        cancel_all((call for call, _ in calls), _LAST)
        raise
    return model, format, calls, picture_format is not None


def _read(image: Media) -> bytes:
    return read_media(image.url, image.param, services().settings)


def _send(model: Model, content: bytes, options: BackgroundRemovalOptions) -> RoutedCall:
    inputs: dict[str, bytes | str] = {"image": content, "options": options.to_json()}
    return start_call(model, inputs, timeout=services().settings.request_timeout)


def _receive(call: RoutedCall, names: Mapping[str | None, str]) -> bytes:
    (response,) = ResponseStream(call, _LAST, field_names=names).responses()
    assert response is not None  # noqa: S101
    content: bytes = response[_LAST]
    return content
