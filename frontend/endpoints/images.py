"""POST /images/generations, /images/edits and /images/variations: OpenAI's, and the images that their URLs name."""

import base64
import time
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from flask import Blueprint, Response, request, url_for

from frontend.access_log import log_fields, request_id
from frontend.endpoints.answer import LONGEST_SECONDS, Answer, events_of
from frontend.endpoints.body import FileField, read_body, read_form, read_upload
from frontend.endpoints.images_request import EditForm, GenerationRequest, ImageFields, VariationForm
from frontend.errors import InvalidRequest, NoSuchPath
from frontend.formats import sse
from frontend.services import services

blueprint = Blueprint("images", __name__)

_IMAGE = FileField("image", "Image file")
_MASK = FileField("mask", "Mask file")


@blueprint.post("/images/generations")
def create_image() -> Response:
    """Answer with images made of a prompt."""
    body = read_body(GenerationRequest)
    return _answer(_send(body, {"prompt": body.prompt}), "image_generation")


@blueprint.post("/images/edits")
def create_image_edit() -> Response:
    """Answer with the image changed as the prompt says: where the mask is transparent, or as a whole."""
    form = read_form(EditForm, _IMAGE)
    inputs: dict[str, bytes | str] = {"prompt": form.prompt, "image": read_upload(_image_field())}
    if _MASK.name in request.files:
        inputs["mask"] = read_upload(_MASK)
    return _answer(_send(form, inputs), "image_edit")


@blueprint.post("/images/variations")
def create_image_variation() -> Response:
    """Answer with images like the one uploaded."""
    form = read_form(VariationForm, _IMAGE)
    return _answer(_send(form, {"prompt": "", "image": read_upload(_image_field())}), "image_variation")


@blueprint.get("/images/files/<name>")
def retrieve_image(name: str) -> Response:
    """Answer with an image that was made. Whoever knows its name may have it."""
    content = services().images.get(name)
    if content is None:
        raise NoSuchPath("There is no such image, or no more")
    headers = {"Cache-Control": "private, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(content, content_type=f"image/{name.rpartition('.')[2]}", headers=headers)


def _image_field() -> FileField:
    """Return the field that has the image, which newer clients send as a list of one."""
    names = [name for name in ("image", "image[]") for _ in request.files.getlist(name)]
    if len(names) > 1:
        raise InvalidRequest("One image at a time, please", param=names[-1])
    return _IMAGE._replace(name=names[0]) if names else _IMAGE


def _send(fields: ImageFields, inputs: Mapping[str, bytes | str]) -> "Images":
    model = services().registry.require(fields.model, "image_generation")
    log_fields()["model"] = model.id
    inputs = {**inputs, "options": orjson.dumps(fields.options())}
    call = services().triton.stream(model.name, inputs, request_id=request_id(), timeout=LONGEST_SECONDS)
    return Images(Answer(call, "num_input_tokens", services().settings.request_timeout), fields)


def _answer(images: "Images", kind: str) -> Response:
    if images.fields.stream:
        return Response(images.events(kind), headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
    return Response(orjson.dumps(images.body()), content_type="application/json")


class Images:
    """One request's images in the making."""

    def __init__(self, answer: Answer, fields: ImageFields):
        self._answer, self.fields = answer, fields
        self._log_fields = log_fields()

    def body(self) -> dict[str, Any]:
        """Return them all, in OpenAI's shape. Raises APIError."""
        data, usage = [], {}
        for response in self._answer.responses():
            if response:
                data.append(self._where(response["image_output"]) | {"revised_prompt": response.get("revised_prompt")})
                usage = self._usage(response) if "num_input_tokens" in response else {}
        return {"created": int(time.time()), "data": data, "usage": usage}

    def events(self, kind: str) -> Iterator[bytes]:
        """Yield OpenAI's events; a failure on the way is an event too."""
        return events_of(self._events(kind), self._answer, self._log_fields)

    def _events(self, kind: str) -> Iterator[bytes]:
        described = {"size": self.fields.size, "quality": self.fields.quality, "background": "opaque"}
        described["output_format"] = self.fields.output_format
        for response in self._answer.responses(heartbeat=True):
            if response is None:
                yield sse.HEARTBEAT
                continue
            event = described | {"created_at": int(time.time()), "index": response["index"]}
            event["b64_json"] = base64.b64encode(response["image_output"]).decode()
            if "partial" in response:
                event |= {"type": f"{kind}.partial_image", "partial_image_index": response["partial"]}
            else:
                event |= {"type": f"{kind}.completed", "revised_prompt": response.get("revised_prompt")}
            if "num_input_tokens" in response:
                event["usage"] = self._usage(response)
            yield sse.encode_event(event)

    def _where(self, content: bytes) -> dict[str, Any]:
        if self.fields.response_format == "b64_json":
            return {"b64_json": base64.b64encode(content).decode()}
        name = services().images.put(content, self.fields.output_format)
        return {"url": url_for("v1_images.retrieve_image", name=name, _external=True)}

    def _usage(self, last: Mapping[str, Any]) -> dict[str, Any]:
        count = last["num_input_tokens"]
        self._log_fields["prompt_tokens"] = count
        details = {"text_tokens": count, "image_tokens": 0}
        return {"input_tokens": count, "input_tokens_details": details, "output_tokens": 0, "total_tokens": count}
