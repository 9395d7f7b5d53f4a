"""POST /chat/completions: OpenAI's createChatCompletion, plain and streamed."""

import logging
import time
import uuid
from collections.abc import Generator, Iterator
from typing import Any

import orjson
from flask import Blueprint, Response, request

from frontend.access_log import log_fields, request_id
from frontend.connection import ClientWatch
from frontend.endpoints.body import read_body
from frontend.endpoints.chat_request import ChatCompletionRequest
from frontend.errors import APIError, EngineFailure, InvalidRequest
from frontend.formats import sse
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.registry import Model

log = logging.getLogger(__name__)

blueprint = Blueprint("chat", __name__)

_HEARTBEAT_SECONDS = 1.0


@blueprint.post("/chat/completions")
def create_chat_completion() -> Response:
    """Answer a conversation. The first token is awaited before the status goes out, streamed or not."""
    body = read_body(ChatCompletionRequest)
    stream = _wants_stream(body)
    if body.stream_options and not stream:
        raise InvalidRequest("'stream_options' needs 'stream': true", param="stream_options")
    model = services().registry.require(body.model, "chat")
    inputs = {
        "messages": orjson.dumps(body.text_messages()),
        "sampling_parameters": orjson.dumps(body.sampling_parameters() | {"stream": stream}),
    }
    timeout = services().settings.request_timeout
    call = services().triton.stream(model.name, inputs, request_id=request_id(), timeout=timeout)
    completion = Completion(model, call, ClientWatch(request.environ, call.cancel))
    log_fields()["model"] = model.id
    try:
        completion.wait_first()
        if stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return Response(completion.stream(include_usage), headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
        return Response(orjson.dumps(completion.plain()), content_type="application/json")
    except BaseException:
        completion.close()
        raise


def _wants_stream(body: ChatCompletionRequest) -> bool:
    """Tell whether to stream where the request leaves it open: AHA's unprefixed path streams, OpenAI's does not."""
    if body.stream is not None:
        return body.stream
    return not request.path.startswith("/v1/") and "application/json" not in request.headers.get("Accept", "")


class Completion:
    """One answer: folds the model's responses into OpenAI's objects, whole or chunk by chunk."""

    def __init__(self, model: Model, call: Call, watch: ClientWatch):
        self._call, self._watch = call, watch
        self._first: dict[str, Any] | None = None
        self._base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": model.fingerprint,
        }
        self._log_fields = log_fields()
        self._usage: dict[str, int] | None = None
        """Set once the model has said its last word."""

    def wait_first(self) -> None:
        """Wait for the first response, so that a failure before it keeps its status. Raises APIError."""
        self._first = self._call.next()

    def plain(self) -> dict[str, Any]:
        """Return the whole answer as a `chat.completion`. Raises APIError."""
        responses = list(self._responses())
        self.close()
        message = {"role": "assistant", "content": "".join(r["text_output"] for r in responses), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": responses[-1]["finish_reason"]}
        return self._base | {"object": "chat.completion", "choices": [choice], "usage": self._usage}

    def stream(self, include_usage: bool) -> Iterator[bytes]:
        """Yield the answer as events; a failure on the way is an event too. Closes the call, however it ends."""
        nothing = {"usage": None} if include_usage else {}
        base = self._base | {"object": "chat.completion.chunk"}

        def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return sse.encode_event(base | {"choices": [choice]} | nothing)

        events = chunk({"role": "assistant", "content": "", "refusal": None})
        try:
            for response in self._responses(heartbeat=True):
                if response is None:
                    yield sse.HEARTBEAT
                    continue
                if response["text_output"]:
                    events += chunk({"content": response["text_output"]})
                if "finish_reason" in response:
                    events += chunk({}, response["finish_reason"])
                if events:
                    yield events
                events = b""
            if include_usage:
                yield sse.encode_event(base | {"choices": [], "usage": self._usage})
            yield sse.DONE
        except APIError as error:
            self._log_fields |= {"status": error.status, "error": f"{error.code}: {error}"}
            yield sse.encode_event(error.body())
        finally:
            self.close()

    def close(self) -> None:
        """Stop whatever is still going on for this answer."""
        self._watch.close()
        if self._usage is None:
            self._call.cancel()

    def _responses(self, heartbeat: bool = False) -> Iterator[Any]:
        """Yield the model's responses to the last, which has the counts; None for each second without one if asked."""
        response = self._first
        while response is not None:
            if "finish_reason" in response:
                self._count(response)
                yield response
                return
            yield response
            response = yield from self._next(heartbeat)
        raise EngineFailure("The model ended its answer without saying why")

    def _next(self, heartbeat: bool) -> Generator[None, None, dict[str, Any] | None]:
        while True:
            try:
                return self._call.next(_HEARTBEAT_SECONDS if heartbeat else None)
            except TimeoutError:
                yield None

    def _count(self, last: dict[str, Any]) -> None:
        prompt, completion = last["num_input_tokens"], last["num_output_tokens"]
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        self._log_fields |= self._usage
