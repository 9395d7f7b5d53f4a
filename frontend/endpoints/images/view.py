"""OpenAI's POST /images/generations, /images/edits and /images/variations, and GET /images/files for their images."""

import base64
import time
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, request

from contract.tensors import IMAGE_GENERATION
from frontend.endpoints.images.picture import picture_response, wanted_format
from frontend.endpoints.images.protocol import EditForm, GenerationRequest, ImageFields, VariationForm
from frontend.errors import InvalidRequest, NotFound
from frontend.http.body import read_body
from frontend.http.multipart import FileField, read_form, read_upload
from frontend.http.respond import StreamedResponse, encode_event, json_response
from frontend.inference.response_stream import ResponseStream, start_call
from frontend.services import public_address, require_model, services
from frontend.triton.routed_call import RoutedCall

blueprint = Blueprint("images", __name__)

_IMAGE = FileField("image", "Image file")
_MASK = FileField("mask", "Mask file")


@blueprint.post("/images/generations")
def create_image() -> Response:
    """Return images generated from a prompt."""
    body = read_body(GenerationRequest)
    return Images(_send(body, body.prompt), body, "image_generation").respond()


@blueprint.post("/images/edits")
def create_image_edit() -> Response:
    """Return the uploaded image, edited according to the prompt.

    With a mask, only the area under its transparent pixels is edited or, if the mask is opaque, under its white
    pixels. Without a mask, only the transparent area of the image is edited or, if the image is opaque, the whole
    image.
    """
    form = read_form(EditForm, _IMAGE, files=2)
    image = _image_field()
    return Images(_send(form, form.prompt, image, _has_mask()), form, "image_edit", image.name).respond()


@blueprint.post("/images/variations")
def create_image_variation() -> Response:
    """Return variations of the uploaded image."""
    form = read_form(VariationForm, _IMAGE)
    image = _image_field()
    return Images(_send(form, "", image), form, "image_variation", image.name).respond()


@blueprint.get("/images/files/<name>")
def retrieve_image(name: str) -> Response:
    """Return a generated image. Anyone who knows the image's name can read it."""
    content = services().images.get(name)
    if content is None:
        raise NotFound("Image not found or expired")
    headers = {"Cache-Control": "private, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(content, content_type=f"image/{name.rpartition('.')[2]}", headers=headers)


def _image_field() -> FileField:
    """Return the form field that holds the image: `image` or, from newer clients, `image[]`, a list of one image.

    Raises InvalidRequest if there are several images.
    """
    names = [name for name in ("image", "image[]") for _ in request.files.getlist(name)]
    if len(names) > 1:
        raise InvalidRequest("Too many images (limit 1)", param=names[-1])
    return _IMAGE._replace(name=names[0]) if names else _IMAGE


def _has_mask() -> bool:
    """Return whether the request has a mask. Raises InvalidRequest if the mask is not a single file."""
    if len(request.files.getlist("mask")) > 1 or "mask[]" in request.files or "mask" in request.form:
        raise InvalidRequest("'mask' must be a single file", param="mask")
    return "mask" in request.files


def _send(fields: ImageFields, prompt: str, image: FileField | None = None, with_mask: bool = False) -> RoutedCall:
    """Start the call to the model. The uploaded files stay in memory only until they are sent. Raises APIError."""
    format = _picture_format(fields) or fields.output_format
    model = require_model(fields.model, "image_generation")
    inputs: dict[str, bytes | str] = {"prompt": prompt, "options": fields.options(format).to_json()}
    if image:
        inputs["image"] = read_upload(image)
    if with_mask:
        inputs["mask"] = read_upload(_MASK)
    return start_call(model, inputs, whole=not fields.stream)


def _picture_format(fields: ImageFields) -> str | None:
    return wanted_format(fields, ("png", "jpeg", "webp"), fields.n, "n")


class Images(StreamedResponse):
    """The images of one request.

    The constructor waits for the first image or preview, so that an error before that can still set the HTTP status.
    Raises APIError.
    """

    def __init__(self, call: RoutedCall, fields: ImageFields, kind: str, image_field: str = "image"):
        names: dict[str | None, str] = {"image": image_field}
        timeout = services().settings.request_timeout
        self._responses = ResponseStream(call, IMAGE_GENERATION.last_output, timeout, names, whole=not fields.stream)
        super().__init__(self._responses)
        self._fields, self._kind, self._address = fields, kind, public_address()

    def respond(self) -> Response:
        """Return the images as server-sent events, in one JSON object, or the only image itself. Raises APIError."""
        if format := _picture_format(self._fields):
            (response,) = (response for response in self._responses.responses() if response)
            self._usage(response)
            return picture_response(response["image_output"], format)
        return self.event_stream() if self._fields.stream else json_response(self._whole())

    def _whole(self) -> dict[str, Any]:
        data, usage = [], {}
        for response in self._responses.responses():
            if response:
                data.append(
                    self._image_data(response["image_output"]) | {"revised_prompt": response.get("revised_prompt")}
                )
                usage = self._usage(response)
        return {"created": int(time.time()), "data": data, "usage": usage}

    def events(self) -> Iterator[bytes | None]:
        """Yield OpenAI's image events."""
        common = {"size": self._fields.size, "quality": self._fields.quality, "background": "opaque"}
        common["output_format"] = self._fields.output_format
        for response in self._responses.responses(heartbeat=True):
            if response is None:
                yield None
                continue
            event = common | {"created_at": int(time.time()), "index": response["index"]}
            event["b64_json"] = base64.b64encode(response["image_output"]).decode()
            if "partial" in response:
                event |= {"type": f"{self._kind}.partial_image", "partial_image_index": response["partial"]}
            else:
                event |= {"type": f"{self._kind}.completed", "revised_prompt": response.get("revised_prompt")}
                event["usage"] = self._usage(response)
            yield encode_event(event)

    def _image_data(self, content: bytes) -> dict[str, Any]:
        if not self._fields.returns_urls():
            return {"b64_json": base64.b64encode(content).decode()}
        name = services().images.put(content, self._fields.output_format)
        return {"url": f"{self._address}/v1/images/files/{name}"}

    def _usage(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return one image's usage. The last image's usage counts the prompt tokens, and all other counts are 0."""
        count = response.get("num_input_tokens", 0)
        if count:
            self._log_fields["prompt_tokens"] = count
        details = {"text_tokens": count, "image_tokens": 0}
        return {"input_tokens": count, "input_tokens_details": details, "output_tokens": 0, "total_tokens": count}
