"""POST /chat/completions: OpenAI's createChatCompletion, plain and streamed."""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from flask import Blueprint, Response, request, stream_with_context

from frontend.access_log import log_fields
from frontend.endpoints.chat.message import MessageBuilder
from frontend.endpoints.chat.protocol import ChatCompletionRequest
from frontend.errors import InvalidRequest
from frontend.generation.logprobs import chat_logprobs, read_logprobs
from frontend.generation.messages import inline_media_size
from frontend.generation.routing import select_model, start_choices
from frontend.generation.tools import describe_tools, pipeline_factory, tool_parameters
from frontend.http import sse
from frontend.http.body import read_body
from frontend.inference.choices import Choices
from frontend.inference.response_stream import events_of
from frontend.parsing.pipeline import ParserPipeline
from frontend.triton.registry import Model

blueprint = Blueprint("chat", __name__)


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
    model = select_model(body.model, body.messages)
    log_fields()["model"] = model.id
    with_boxes = model.task == "ocr" and (body.metadata or {}).get("boxes") == "true"
    new_pipeline = pipeline_factory(model, body)
    about_tools = tool_parameters(model, body, body.constraint()) | {"stream": stream}
    samplings = [body.sampling_parameters(number) | about_tools for number in range(body.count)]
    choices = start_choices(model, body.messages, samplings, describe_tools(body))
    completion = Completion(model, choices, new_pipeline, with_boxes)
    return completion, stream, bool(body.stream_options and body.stream_options.include_usage)


def _wants_stream(body: ChatCompletionRequest) -> bool:
    """Tell whether to stream where the request leaves it open: AHA's unprefixed path streams, OpenAI's does not."""
    if body.stream is not None:
        return body.stream
    return not request.path.startswith("/v1/") and "application/json" not in request.headers.get("Accept", "")


class Completion:
    """The answers to a conversation: folds the model's responses into OpenAI's objects, whole or chunk by chunk.

    A response has `text_output`, and perhaps `logprobs` (JSON); a choice's last one also `finish_reason`,
    `num_input_tokens`, `num_output_tokens`, and perhaps `num_reasoning_tokens`. Those of a model that reads images have
    `boxes`, which are passed on if the request asks for them.
    """

    def __init__(
        self,
        model: Model,
        choices: Choices,
        new_pipeline: Callable[[], ParserPipeline] = ParserPipeline,
        with_boxes: bool = False,
    ):
        self._choices, self._with_boxes = choices, with_boxes
        self._builders = defaultdict[int, MessageBuilder](lambda: MessageBuilder(new_pipeline()))
        self._base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": model.fingerprint,
        }
        self._log_fields = log_fields()
        self._counts: dict[int, tuple[int, int, int | None]] = {}

    def plain(self) -> dict[str, Any]:
        """Return the whole answer as a `chat.completion`. Raises APIError."""
        responses: dict[int, list[dict[str, Any]]] = {}
        for number, response in filter(None, self._choices.responses()):
            responses.setdefault(number, []).append(response)
            self._count(number, response)
        choices = [self._choice(number, responses[number]) for number in sorted(responses)]
        return self._base | {"object": "chat.completion", "choices": choices, "usage": self._usage()}

    def _choice(self, number: int, responses: list[dict[str, Any]]) -> dict[str, Any]:
        builder = self._builders[number]
        for response in responses:
            builder.push(response["text_output"])
        builder.end()
        message = builder.message()
        if self._with_boxes:
            message["boxes"] = [box for response in responses for box in response.get("boxes", ())]
        finish_reason, entries = builder.finish_reason(responses[-1]["finish_reason"]), read_logprobs(responses)
        logprobs = None if entries is None else chat_logprobs(entries)
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}

    def stream(self, include_usage: bool) -> Iterator[bytes]:
        """Yield the answer as events; a failure on the way is an event too. Closes the calls, however it ends."""
        return events_of(self._events(include_usage), self._choices, self._log_fields)

    def _events(self, include_usage: bool) -> Iterator[bytes]:
        nothing = {"usage": None} if include_usage else {}
        base = self._base | {"object": "chat.completion.chunk"}
        begun: set[int] = set()

        def chunk(number: int, delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None) -> bytes:
            choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
            return sse.encode_event(base | {"choices": [choice]} | nothing)

        for arrived in self._choices.responses(heartbeat=True):
            if arrived is None:
                yield sse.HEARTBEAT
                continue
            number, response = arrived
            events = b"" if number in begun else chunk(number, {"role": "assistant", "content": "", "refusal": None})
            begun.add(number)
            entries = read_logprobs([response])
            logprobs = chat_logprobs(entries) if entries else None
            boxes = {"boxes": response["boxes"]} if self._with_boxes and "boxes" in response else {}
            builder = self._builders[number]
            deltas = builder.push(response["text_output"]) + (builder.end() if "finish_reason" in response else [])
            for delta in deltas or ([{"content": ""}] if logprobs else []):
                events += chunk(number, delta | boxes, logprobs)
                logprobs = None
            if "finish_reason" in response:
                events += chunk(number, {}, finish_reason=builder.finish_reason(response["finish_reason"]))
                self._count(number, response)
            if events:
                yield events
        usage = self._usage()
        if include_usage:
            yield sse.encode_event(base | {"choices": [], "usage": usage})
        yield sse.DONE

    def _count(self, number: int, response: Mapping[str, Any]) -> None:
        if "finish_reason" in response:
            thoughts = response.get("num_reasoning_tokens")
            self._counts[number] = response["num_input_tokens"], response["num_output_tokens"], thoughts

    def _usage(self) -> dict[str, Any]:
        prompts, completions, thoughts = zip(*self._counts.values(), strict=True)
        prompt, completion = max(prompts), sum(completions)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._log_fields |= usage
        told = [count for count in thoughts if count is not None]
        return usage | ({"completion_tokens_details": {"reasoning_tokens": sum(told)}} if told else {})
