"""POST /responses: OpenAI's createResponse, plain and streamed, and the responses that were answered."""

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from flask import Blueprint, Response, stream_with_context

from frontend.access_log import log_fields
from frontend.endpoints.answer import events_of
from frontend.endpoints.body import read_body
from frontend.endpoints.chat_tools import ChatMessage, ToolFields, reader_of, tool_parameters
from frontend.endpoints.choices import Responses
from frontend.endpoints.conversation import answer_to, model_for
from frontend.endpoints.responses_request import ResponseRequest, inline_image_size
from frontend.errors import APIError, InvalidRequest, NoSuchPath
from frontend.formats import sse
from frontend.formats.response_object import ResponseEvents, output_message, output_text, usage
from frontend.response_store import ResponseStore, StoredResponse
from frontend.services import services
from frontend.triton.registry import Model

blueprint = Blueprint("responses", __name__)

_MESSAGES = re.compile(r"messages(?:\[(\d+)\](.*))?")


@blueprint.post("/responses")
def create_response() -> Response:
    """Answer a conversation, and remember it. The first token is awaited before the status goes out."""
    body = read_body(ResponseRequest, inline_image_size)
    making = _begin(body)
    if body.stream:
        events = stream_with_context(making.stream())
        return Response(events, headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
    return Response(orjson.dumps(making.plain()), content_type="application/json")


@blueprint.get("/responses/<identifier>")
def retrieve_response(identifier: str) -> Response:
    """Answer with a response that is remembered. Whoever knows its id may have it."""
    stored = services().responses.get(identifier)
    if stored is None:
        raise _not_found(identifier)
    return Response(orjson.dumps(stored.response), content_type="application/json")


@blueprint.delete("/responses/<identifier>")
def delete_response(identifier: str) -> Response:
    """Forget a response; those that followed on it keep what they have of it."""
    if not services().responses.delete(identifier):
        raise _not_found(identifier)
    deleted = {"id": identifier, "object": "response", "deleted": True}
    return Response(orjson.dumps(deleted), content_type="application/json")


def _not_found(identifier: str) -> APIError:
    return NoSuchPath(f"Response with id '{identifier}' not found.", param="response_id")


def _begin(body: ResponseRequest) -> "ResponseInMaking":
    """Have the conversation answered: instructions, what was said before, the input. Raises APIError."""
    before, asked = _messages_before(body.previous_response_id), body.messages()
    # Instructions are for one answer alone: they are not remembered.
    instructions = [ChatMessage(role="system", content=body.instructions)] if body.instructions else []
    messages = [*instructions, *before, *asked.values()]
    places = [*["instructions"] * len(instructions), *["previous_response_id"] * len(before), *asked]
    try:
        model = model_for(body.model, messages)
        log_fields()["model"] = model.id
        about_thoughts = tool_parameters(model, ToolFields())
        sampling = body.sampling_parameters() | about_thoughts | {"stream": bool(body.stream)}
        answer = answer_to(model, messages, sampling)
    except APIError as error:
        error.param = _place(error.param, places)
        raise
    store = services().responses if body.store is not False else None
    return ResponseInMaking(model, answer, body, messages[len(instructions) :], store)


def _messages_before(identifier: str | None) -> list[ChatMessage]:
    if identifier is None:
        return []
    stored = services().responses.get(identifier)
    if stored is None:
        message = f"Previous response with id '{identifier}' not found."
        raise InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
    return [ChatMessage.model_validate(message) for message in stored.messages]


def _place(param: str | None, places: Sequence[str]) -> str | None:
    """Return the request's name of a part of the conversation; `places` has that of each message."""
    found = _MESSAGES.fullmatch(param or "")
    if not found:
        return param
    if found[1] is None:
        return "input"
    place = places[int(found[1])]
    return place + found[2].replace(".image_url.url", ".image_url") if place.startswith("input[") else place


class ResponseInMaking:
    """One answer: folds the model's responses into OpenAI's `response`, whole or as events, and keeps it in `store`.

    `messages` are what the next one will follow on, but for the answer.
    """

    def __init__(
        self,
        model: Model,
        answer: Responses,
        body: ResponseRequest,
        messages: Sequence[ChatMessage],
        store: ResponseStore | None,
    ):
        self._answer, self._messages, self._store = answer, messages, store
        self._reply = reader_of(model, ToolFields())()
        self._message_id = f"msg_{uuid.uuid4().hex}"
        self._response = body.echoed() | {
            "id": ResponseStore.new_id(),
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model.id,
            "output": [],
            "usage": None,
        }
        self._log_fields = log_fields()

    def plain(self) -> dict[str, Any]:
        """Return the whole response. Raises APIError."""
        responses = [response for response in self._answer.responses() if response]
        text = "".join(self._said(response) for response in responses)
        return self._finished(text, responses[-1])

    def _said(self, response: dict[str, Any]) -> str:
        """Return the text of a response that is not a thought."""
        deltas = self._reply.push(response["text_output"])
        deltas += self._reply.end() if "finish_reason" in response else []
        return "".join(delta.get("content", "") for delta in deltas)

    def stream(self) -> Iterator[bytes]:
        """Yield the response as events; a failure on the way is `response.failed`. Closes the call, however it ends."""
        events = ResponseEvents(self._message_id)

        def failure(error: APIError) -> bytes:
            failed = {"status": "failed", "error": {"code": "server_error", "message": str(error)}}
            return events.state("failed", self._response | failed)

        return events_of(self._events(events), self._answer, self._log_fields, failure)

    def _events(self, events: ResponseEvents) -> Iterator[bytes]:
        yield events.state("created", self._response) + events.state("in_progress", self._response)
        yield events.message_begins()
        text, last = "", {}
        for response in self._answer.responses(heartbeat=True):
            if response is None:
                yield sse.HEARTBEAT
                continue
            if said := self._said(response):
                text += said
                yield events.delta(said)
            last = response
        finished = self._finished(text, last)
        yield events.message_ends(finished["output"][0])
        yield events.state(finished["status"], finished)

    def _finished(self, text: str, last: dict[str, Any]) -> dict[str, Any]:
        """Return the response as it is at its end, and keep it: who has it can have the next one follow at once."""
        status = "incomplete" if last["finish_reason"] == "length" else "completed"
        used = usage(last)
        finished = self._response | {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [output_message(self._message_id, status, output_text(text))],
            "usage": used,
        }
        self._log_fields |= {"prompt_tokens": used["input_tokens"], "completion_tokens": used["output_tokens"]}
        if self._store:
            said = [*self._messages, ChatMessage(role="assistant", content=text)]
            self._store.put(StoredResponse(finished, [message.model_dump(exclude_none=True) for message in said]))
        return finished
