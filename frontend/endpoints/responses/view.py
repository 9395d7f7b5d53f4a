"""POST /responses: OpenAI's createResponse, as one JSON object or as a stream, and access to stored responses."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response

from frontend.endpoints.responses.events import ResponseEvents, usage
from frontend.endpoints.responses.items import LocatedMessage, inline_image_size, read_output, with_request_paths
from frontend.endpoints.responses.output import ResponseOutput
from frontend.endpoints.responses.protocol import ResponseRequest
from frontend.errors import APIError, InvalidRequest, NotFound
from frontend.generation.messages import ChatMessage, checked_calls
from frontend.generation.routing import Delivery, select_model, start
from frontend.generation.tools import describe_tools, pipeline_factory, tool_parameters
from frontend.http.body import read_body
from frontend.http.respond import StreamedResponse, json_response
from frontend.inference.response_stream import ResponseSource
from frontend.parsing.pipeline import ParserPipeline
from frontend.services import services
from frontend.storage.responses import ResponseStore, StoredResponse
from frontend.triton.model import Model

blueprint = Blueprint("responses", __name__)

_INSTRUCTIONS = "instructions"

# `compact` is not an ID: POST /responses/compact, which Trident lacks, must be a 404 instead of a 405.
_STORED = "/responses/<string(minlength=8):identifier>"


@blueprint.post("/responses")
def create_response() -> Response:
    """Return a response, and store it unless `store` is false.

    The HTTP status is sent only after the model's first output has arrived, so that an earlier error can set it.
    """
    body = read_body(ResponseRequest, inline_image_size)
    created = _start(body)
    return created.event_stream() if body.stream else json_response(created.body())


@blueprint.get(_STORED)
def retrieve_response(identifier: str) -> Response:
    """Return a stored response. Anyone who knows its ID can read it."""
    stored = services().responses.get(identifier)
    if stored is None:
        raise _not_found(identifier)
    return json_response(stored.response)


@blueprint.delete(_STORED)
def delete_response(identifier: str) -> Response:
    """Delete a stored response. Responses that continue it keep their copy of the conversation."""
    if not services().responses.delete(identifier):
        raise _not_found(identifier)
    return json_response({"id": identifier, "object": "response", "deleted": True})


def _not_found(identifier: str) -> APIError:
    return NotFound(f"Response with id '{identifier}' not found.", param="response_id")


def _start(body: ResponseRequest) -> "CreatedResponse":
    """Start a response to the instructions, the previous messages and the input. Raises APIError."""
    # Instructions apply only to this response; the stored conversation omits them.
    system = ChatMessage(role="system", content=body.instructions or "")
    instructions = [LocatedMessage(system, _INSTRUCTIONS)] if body.instructions else []
    conversation = [
        *instructions,
        *_previous_messages(body.previous_response_id),
        *body.conversation(services().responses.item_reader()),
    ]
    tools = body.tool_fields()
    with with_request_paths(conversation), body.tool_paths():
        messages = checked_calls([one.message for one in conversation])
        model = select_model(body.model, messages)
        pipeline = pipeline_factory(model, tools)()
        parameters = tool_parameters(model, tools, body.constraint())
        sampling = body.sampling_parameters(model) | parameters | {"stream": body.stream}
        delivery = Delivery(body.prompt_cache_key or "", whole=not body.stream)
        source = start(model, messages, sampling, describe_tools(tools), delivery=delivery)
    store = services().responses if body.store else None
    return CreatedResponse(model, source, pipeline, body, conversation, store)


def _previous_messages(identifier: str | None) -> list[LocatedMessage]:
    if identifier is None:
        return []
    stored = services().responses.get(identifier)
    if stored is None:
        message = f"Previous response with id '{identifier}' not found."
        raise InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
    return [LocatedMessage(ChatMessage.model_validate(message), "previous_response_id") for message in stored.messages]


class CreatedResponse(StreamedResponse):
    """Converts the model's output to OpenAI's `response`, as one object or as events, and puts it into `store`, if any.

    The conversation is stored with the response, without the instructions but with the output, so that later requests
    can continue the conversation.
    """

    def __init__(
        self,
        model: Model,
        source: ResponseSource,
        pipeline: ParserPipeline,
        body: ResponseRequest,
        conversation: Sequence[LocatedMessage],
        store: ResponseStore | None,
    ):
        super().__init__(source)
        self._responses, self._pipeline, self._conversation, self._store = source, pipeline, conversation, store
        self._body, self._events = body, ResponseEvents()
        identifier = ResponseStore.new_id()
        self._output = ResponseOutput(identifier, self._events)
        self._response = body.echoed(model) | {
            "id": identifier,
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

    def body(self) -> dict[str, Any]:
        """Return the complete response. Raises APIError."""
        with with_request_paths(self._conversation), self._body.tool_paths():
            responses = [response for response in self._responses.responses() if response]
        for response in responses:
            self._read(response)
        return self._finished(responses[-1])

    def failure_event(self, error: APIError) -> bytes:
        """Return the event `response.failed`."""
        failed = {"status": "failed", "error": {"code": "server_error", "message": str(error)}}
        return self._events.state("failed", self._response | failed)

    def events(self) -> Iterator[bytes | None]:
        """Yield the response as events."""
        events, last = self._events, {}
        yield events.state("created", self._response) + events.state("in_progress", self._response)
        for response in self._responses.responses(heartbeat=True):
            if response is None:
                yield None
            else:
                last = response
                yield from filter(None, [self._read(response)])
        finished = self._finished(last)
        yield events.state(finished["status"], finished)

    def _read(self, response: Mapping[str, Any]) -> bytes:
        """Parse the next part of the model's output into output items, and return the resulting events."""
        events = self._output.push(self._pipeline.push(response["text_output"]))
        if "finish_reason" in response:
            events += self._output.push(self._pipeline.end(response["finish_reason"] == "length"))
            events += self._output.end(_status(response))
        return events

    def _finished(self, last: Mapping[str, Any]) -> dict[str, Any]:
        """Store the finished response, then return it, so that the client can continue it as soon as it arrives."""
        status, used = _status(last), usage(last)
        finished = self._response | {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": self._output.items,
            "usage": used,
        }
        self._log_fields |= {"prompt_tokens": used["input_tokens"], "completion_tokens": used["output_tokens"]}
        if self._store:
            messages = [one.message for one in self._conversation if one.path != _INSTRUCTIONS]
            messages += read_output(self._output.items)
            self._store.put(StoredResponse(finished, [message.model_dump(exclude_none=True) for message in messages]))
        return finished


def _status(last: Mapping[str, Any]) -> str:
    return "incomplete" if last["finish_reason"] == "length" else "completed"
