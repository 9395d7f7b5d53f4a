"""POST /completions: OpenAI's createCompletion, which goes on with prompts. Plain and streamed."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response

from frontend.access_log import log_fields
from frontend.endpoints.completions.protocol import CompletionRequest
from frontend.errors import InvalidRequest
from frontend.generation.logprobs import CompletionLogprobs, read_logprobs
from frontend.generation.send import send_prompt
from frontend.http import sse
from frontend.http.body import read_body
from frontend.inference.response_stream import ResponseStream, await_all, events_of
from frontend.services import services
from frontend.triton.registry import Model

blueprint = Blueprint("completions", __name__)

_LAST = "finish_reason"


@blueprint.post("/completions")
def create_completion() -> Response:
    """Answer each prompt with what follows it. The first tokens are awaited before the status goes out."""
    body = read_body(CompletionRequest)
    if body.stream_options and not body.stream:
        raise InvalidRequest("'stream_options' needs 'stream': true", param="stream_options")
    model = services().registry.require(body.model, "chat")
    log_fields()["model"] = model.id
    choices = Completions(model, body)
    if body.stream:
        events = choices.stream(bool(body.stream_options and body.stream_options.include_usage))
        return Response(events, headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
    return Response(orjson.dumps(choices.plain()), content_type="application/json")


class Completions:
    """One request's answers, which the engine makes at the same time: `n` a prompt, in the order of the prompts."""

    def __init__(self, model: Model, body: CompletionRequest):
        self._base = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": model.fingerprint,
        }
        self._per_prompt = body.choices_per_prompt
        self._usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self._log_fields = log_fields()
        self._answers = _begin(model, body)

    def plain(self) -> dict[str, Any]:
        """Return them all as one `text_completion`. Raises APIError."""
        try:
            choices = [self._whole(index, answer) for index, answer in enumerate(self._answers)]
        finally:
            self.close()
        return self._base | {"choices": choices, "usage": self._usage}

    def stream(self, include_usage: bool) -> Iterator[bytes]:
        """Yield them as events, one answer after the other; a failure on the way is an event too."""
        return events_of(self._events(include_usage), self, self._log_fields)

    def close(self) -> None:
        """Stop whatever is still being made."""
        for answer in self._answers:
            answer.close()

    def _whole(self, index: int, answer: ResponseStream) -> dict[str, Any]:
        responses = [response for response in answer.responses() if response]
        self._count(index, responses[-1])
        text = "".join(response["text_output"] for response in responses)
        return _choice(index, text, responses[-1][_LAST], CompletionLogprobs(), responses)

    def _events(self, include_usage: bool) -> Iterator[bytes]:
        nothing = {"usage": None} if include_usage else {}
        for index, answer in enumerate(self._answers):
            logprobs = CompletionLogprobs()
            for response in answer.responses(heartbeat=True):
                if response is None:
                    yield sse.HEARTBEAT
                    continue
                finish_reason = response.get(_LAST)
                if finish_reason:
                    self._count(index, response)
                choice = _choice(index, response["text_output"], finish_reason, logprobs, [response])
                yield sse.encode_event(self._base | {"choices": [choice]} | nothing)
        if include_usage:
            yield sse.encode_event(self._base | {"choices": [], "usage": self._usage})
        yield sse.DONE

    def _count(self, index: int, last: dict[str, Any]) -> None:
        """Add an answer to the usage; a prompt counts once, however many answers it has."""
        if index % self._per_prompt == 0:
            self._usage["prompt_tokens"] += last["num_input_tokens"]
        self._usage["completion_tokens"] += last["num_output_tokens"]
        self._usage["total_tokens"] = self._usage["prompt_tokens"] + self._usage["completion_tokens"]
        self._log_fields |= self._usage


def _begin(model: Model, body: CompletionRequest) -> list[ResponseStream]:
    """Have all answers begun, and wait until each has: what is wrong with a prompt has its status, and its name."""
    how = {"stream": bool(body.stream), "echo": bool(body.echo)}
    asked = [
        (where, prompt, number) for where, prompt in body.prompts.items() for number in range(body.choices_per_prompt)
    ]
    begin = [partial(send_prompt, model, prompt, body.sampling_parameters(number) | how) for _, prompt, number in asked]
    return await_all(begin, _LAST, lambda number: _named(asked[number][0]))


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Have an error name the prompt as the request does, `where`; the model calls it `prompt`."""
    try:
        yield
    except InvalidRequest as error:
        if error.param and error.param.startswith("prompt"):
            error.param = where + error.param.removeprefix("prompt")
        raise


def _choice(
    index: int,
    text: str,
    finish_reason: str | None,
    logprobs: CompletionLogprobs,
    responses: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    entries = read_logprobs(responses)
    told = None if entries is None else logprobs.of(entries)
    return {"index": index, "text": text, "logprobs": told, "finish_reason": finish_reason}
