"""POST /chat/completions: OpenAI's createChatCompletion, plain and streamed."""

import time
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import orjson
from flask import Blueprint, Response, request, stream_with_context

from frontend.access_log import log_fields, request_id
from frontend.endpoints.answer import Answer, events_of
from frontend.endpoints.body import read_body
from frontend.endpoints.chat_audio import Heard
from frontend.endpoints.chat_messages import check_parts, model_messages, read_images
from frontend.endpoints.chat_ocr import Read
from frontend.endpoints.chat_request import ChatCompletionRequest
from frontend.endpoints.messages import has_media, inline_media_size
from frontend.errors import InvalidRequest
from frontend.formats import sse
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.registry import Model
from frontend.triton.tensors import Value

blueprint = Blueprint("chat", __name__)


# What a conversation with such media can be answered by, the best first: a model's task, or its capability.
_TASKS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("chat",),
    ("audio",): ("transcription", "chat"),
    ("image",): ("vision", "ocr", "chat"),
    ("audio", "image"): ("vision", "chat"),
}


class Responses(Protocol):
    """Where a completion has its text from."""

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]: ...
    def close(self) -> None: ...


@blueprint.post("/chat/completions")
def create_chat_completion() -> Response:
    """Answer a conversation. The first token is awaited before the status goes out, streamed or not."""
    completion, stream, include_usage = _begin()
    if stream:
        events = stream_with_context(completion.stream(include_usage))  # a second audio file is asked about in it
        return Response(events, headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
    return Response(orjson.dumps(completion.plain()), content_type="application/json")


def _begin() -> tuple["Completion", bool, bool]:
    """Return the completion, whether to stream it, and whether with usage. A large body is gone after it."""
    body = read_body(ChatCompletionRequest, inline_media_size)
    stream = _wants_stream(body)
    if body.stream_options and not stream:
        raise InvalidRequest("'stream_options' needs 'stream': true", param="stream_options")
    model = _model(body)
    log_fields()["model"] = model.id
    answer = _answer(model, body, stream)
    with_boxes = model.task == "ocr" and (body.metadata or {}).get("boxes") == "true"
    completion = Completion(model, answer, with_boxes)
    return completion, stream, bool(body.stream_options and body.stream_options.include_usage)


def _model(body: ChatCompletionRequest) -> Model:
    """Return the model asked for: one that chats, for audio also one that transcribes, for images one that reads."""
    kinds = tuple(kind for kind in ("audio", "image") if has_media(body.messages, kind))
    return services().registry.require(body.model, *_TASKS[kinds])


def _answer(model: Model, body: ChatCompletionRequest, stream: bool) -> Responses:
    if model.task == "transcription":
        return Heard(model, body.messages)
    if model.task == "ocr":
        return Read(model, body.messages)
    return Answer(_send(model, body, stream), "finish_reason")


def _send(model: Model, body: ChatCompletionRequest, stream: bool) -> Call:
    """Send the conversation. Its images are not held in memory any longer than that takes."""
    sees = model.serves("vision")
    check_parts(body.messages, sees)
    images = read_images(body.messages)
    inputs: dict[str, Value] = {
        "messages": orjson.dumps(model_messages(body.messages)),
        "sampling_parameters": orjson.dumps(body.sampling_parameters() | {"stream": stream}),
    }
    if images:
        inputs["image"] = images
    timeout = services().settings.request_timeout
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=timeout)


def _wants_stream(body: ChatCompletionRequest) -> bool:
    """Tell whether to stream where the request leaves it open: AHA's unprefixed path streams, OpenAI's does not."""
    if body.stream is not None:
        return body.stream
    return not request.path.startswith("/v1/") and "application/json" not in request.headers.get("Accept", "")


class Completion:
    """One answer: folds the model's responses into OpenAI's objects, whole or chunk by chunk.

    A response has `text_output`; the last one also `finish_reason`, `num_input_tokens` and `num_output_tokens`. Those
    of a model that reads images have `boxes`, which are passed on if the request asks for them.
    """

    def __init__(self, model: Model, answer: Responses, with_boxes: bool = False):
        self._answer, self._with_boxes = answer, with_boxes
        self._base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": model.fingerprint,
        }
        self._log_fields = log_fields()

    def plain(self) -> dict[str, Any]:
        """Return the whole answer as a `chat.completion`. Raises APIError."""
        responses = [response for response in self._answer.responses() if response]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(r["text_output"] for r in responses),
            "refusal": None,
        }
        if self._with_boxes:
            message["boxes"] = [box for response in responses for box in response.get("boxes", ())]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": responses[-1]["finish_reason"]}
        return self._base | {"object": "chat.completion", "choices": [choice], "usage": self._usage(responses[-1])}

    def stream(self, include_usage: bool) -> Iterator[bytes]:
        """Yield the answer as events; a failure on the way is an event too. Closes the call, however it ends."""
        return events_of(self._events(include_usage), self._answer, self._log_fields)

    def _events(self, include_usage: bool) -> Iterator[bytes]:
        nothing = {"usage": None} if include_usage else {}
        base = self._base | {"object": "chat.completion.chunk"}

        def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return sse.encode_event(base | {"choices": [choice]} | nothing)

        events = chunk({"role": "assistant", "content": "", "refusal": None})
        for response in self._answer.responses(heartbeat=True):
            if response is None:
                yield sse.HEARTBEAT
                continue
            if response["text_output"]:
                boxes = {"boxes": response["boxes"]} if self._with_boxes and "boxes" in response else {}
                events += chunk({"content": response["text_output"]} | boxes)
            if "finish_reason" in response:
                events += chunk({}, response["finish_reason"])
                usage = self._usage(response)
            if events:
                yield events
            events = b""
        if include_usage:
            yield sse.encode_event(base | {"choices": [], "usage": usage})
        yield sse.DONE

    def _usage(self, last: dict[str, Any]) -> dict[str, int]:
        prompt, completion = last["num_input_tokens"], last["num_output_tokens"]
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._log_fields |= usage
        return usage
