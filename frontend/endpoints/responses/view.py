"""POST /responses: OpenAI's createResponse, plain and streamed, and the responses that were answered."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from flask import Blueprint, Response, stream_with_context

from frontend.access_log import log_fields
from frontend.endpoints.responses.events import ResponseEvents, usage
from frontend.endpoints.responses.items import LocatedMessage, inline_image_size, read_output, with_request_paths
from frontend.endpoints.responses.output import ResponseOutput
from frontend.endpoints.responses.protocol import ResponseRequest
from frontend.errors import APIError, InvalidRequest, NoSuchPath
from frontend.generation.routing import select_model, start
from frontend.generation.tools import ChatMessage, checked_calls, describe_tools, pipeline_factory, tool_parameters
from frontend.http import sse
from frontend.http.body import read_body
from frontend.inference.choices import Responses
from frontend.inference.response_stream import events_of
from frontend.parsing.pipeline import ParserPipeline
from frontend.services import services
from frontend.storage.responses import ResponseStore, StoredResponse
from frontend.triton.registry import Model

blueprint = Blueprint("responses", __name__)

_INSTRUCTIONS = "instructions"


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
    # Instructions are for one answer alone: they are not remembered.
    told = (
        [LocatedMessage(ChatMessage(role="system", content=body.instructions), _INSTRUCTIONS)]
        if body.instructions
        else []
    )
    conversation = [*told, *_said_before(body.previous_response_id), *body.conversation()]
    tools = body.tool_fields()
    with with_request_paths(conversation):
        messages = checked_calls([located.message for located in conversation])
        model = select_model(body.model, messages)
        log_fields()["model"] = model.id
        pipeline = pipeline_factory(model, tools)()
        sampling = body.sampling_parameters() | {"stream": bool(body.stream)}
        sampling |= tool_parameters(model, tools, sampling.get("constraint"))
        answer = start(model, messages, sampling, describe_tools(tools))
    store = services().responses if body.store is not False else None
    return ResponseInMaking(model, answer, pipeline, body, conversation, store)


def _said_before(identifier: str | None) -> list[LocatedMessage]:
    if identifier is None:
        return []
    stored = services().responses.get(identifier)
    if stored is None:
        message = f"Previous response with id '{identifier}' not found."
        raise InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
    return [LocatedMessage(ChatMessage.model_validate(message), "previous_response_id") for message in stored.messages]


class ResponseInMaking:
    """One answer: folds the model's responses into OpenAI's `response`, whole or as events, and keeps it in `store`.

    The next one will follow on the conversation, but for its instructions, and the answer.
    """

    def __init__(
        self,
        model: Model,
        answer: Responses,
        pipeline: ParserPipeline,
        body: ResponseRequest,
        conversation: Sequence[LocatedMessage],
        store: ResponseStore | None,
    ):
        self._answer, self._pipeline, self._conversation, self._store = answer, pipeline, conversation, store
        self._events = ResponseEvents()
        self._output = ResponseOutput(self._events)
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
        with with_request_paths(self._conversation):
            responses = [response for response in self._answer.responses() if response]
        for response in responses:
            self._read(response)
        return self._finished(responses[-1])

    def stream(self) -> Iterator[bytes]:
        """Yield the response as events; a failure on the way is `response.failed`. Closes the call, however it ends."""

        def failure(error: APIError) -> bytes:
            failed = {"status": "failed", "error": {"code": "server_error", "message": str(error)}}
            return self._events.state("failed", self._response | failed)

        return events_of(self._all_events(), self._answer, self._log_fields, failure)

    def _all_events(self) -> Iterator[bytes]:
        events, last = self._events, {}
        yield events.state("created", self._response) + events.state("in_progress", self._response)
        for response in self._answer.responses(heartbeat=True):
            if response is None:
                yield sse.HEARTBEAT
            else:
                last = response
                yield from filter(None, [self._read(response)])
        finished = self._finished(last)
        yield events.state(finished["status"], finished)

    def _read(self, response: Mapping[str, Any]) -> bytes:
        """Take what a response says; return the events of it."""
        events = self._output.push(self._pipeline.push(response["text_output"]))
        if "finish_reason" in response:
            events += self._output.push(self._pipeline.end()) + self._output.end(_status(response))
        return events

    def _finished(self, last: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response as it is at its end, and keep it: who has it can have the next one follow at once."""
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
            said = [located.message for located in self._conversation if located.path != _INSTRUCTIONS]
            said += read_output(self._output.items)
            self._store.put(StoredResponse(finished, [message.model_dump(exclude_none=True) for message in said]))
        return finished


def _status(last: Mapping[str, Any]) -> str:
    return "incomplete" if last["finish_reason"] == "length" else "completed"
