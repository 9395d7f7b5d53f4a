"""POST /chat/completions, OpenAI's createChatCompletion. The response is one JSON object or a stream."""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, request

from frontend.endpoints.chat.protocol import ChatCompletionRequest, MessageBuilder, chat_logprobs
from frontend.errors import InvalidRequest
from frontend.generation.messages import inline_media_size
from frontend.generation.routing import Delivery, select_model, start_choices
from frontend.generation.tools import describe_tools, pipeline_factory, tool_parameters
from frontend.http.body import read_body
from frontend.http.respond import DONE, StreamedResponse, encode_event, json_response
from frontend.inference.response_stream import Choices, read_logprobs
from frontend.parsing.pipeline import ParserPipeline
from frontend.triton.model import Model

blueprint = Blueprint("chat", __name__)


@blueprint.post("/chat/completions")
def create_chat_completion() -> Response:
    """Return a chat completion.

    The HTTP status is sent after the first response of every choice. An error before that is sent with its own status.
    """
    completion, stream = _start()
    return completion.event_stream() if stream else json_response(completion.body())


def _start() -> tuple["Completion", bool]:
    """Return the completion and whether to stream it. Frees the request body, which may be large, on return."""
    body = read_body(ChatCompletionRequest, inline_media_size)
    stream = _wants_stream(body)
    if body.stream_options and not stream:
        raise InvalidRequest("'stream_options' requires 'stream': true", param="stream_options")
    model = select_model(body.model, body.messages)
    new_pipeline = pipeline_factory(model, body)
    shared = tool_parameters(model, body, body.constraint()) | {"stream": stream}
    samplings = [body.sampling_parameters(model, index) | shared for index in range(body.n)]
    delivery = Delivery(body.prompt_cache_key or "", whole=not stream)
    choices = start_choices(model, body.messages, samplings, describe_tools(body), body.metadata, delivery)
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    return Completion(model, choices, new_pipeline, with_usage), stream


def _wants_stream(body: ChatCompletionRequest) -> bool:
    """Return the request field `stream`, or the default of the request's path if the field is omitted.

    The default of OpenAI's path, /v1/chat/completions, is false. The default of AHA's path, /chat/completions, is true
    unless the header Accept contains application/json (see docs/compatibility.md).
    """
    if "stream" in body.model_fields_set:
        return body.stream
    return not request.path.startswith("/v1/") and "application/json" not in request.headers.get("Accept", "")


class Completion(StreamedResponse):
    """Converts model responses to OpenAI's chat completion, as one object or as chunks.

    Each model response has `text_output`, and optionally `logprobs` (JSON) and `message_fields` (further fields of the
    message, each with a list as its value). A choice's last response also has `finish_reason`, `num_input_tokens`,
    `num_output_tokens`, and optionally `num_reasoning_tokens` and `num_cached_tokens`.
    """

    def __init__(self, model: Model, choices: Choices, new_pipeline: Callable[[], ParserPipeline], with_usage: bool):
        super().__init__(choices)
        self._choices, self._with_usage = choices, with_usage
        self._builders = defaultdict[int, MessageBuilder](lambda: MessageBuilder(new_pipeline()))
        self._base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": model.fingerprint,
        }
        self._counts: dict[int, tuple[int, int, int | None, int | None]] = {}

    def body(self) -> dict[str, Any]:
        """Return the completion as one `chat.completion`. Raises APIError."""
        responses: dict[int, list[dict[str, Any]]] = {}
        for index, response in filter(None, self._choices.responses()):
            responses.setdefault(index, []).append(response)
            self._count(index, response)
        choices = [self._choice(index, responses[index]) for index in sorted(responses)]
        return self._base | {"object": "chat.completion", "choices": choices, "usage": self._usage()}

    def _choice(self, index: int, responses: list[dict[str, Any]]) -> dict[str, Any]:
        builder = self._builders[index]
        for response in responses:
            builder.push(response["text_output"])
        builder.end(responses[-1]["finish_reason"])
        message = builder.message()
        for response in responses:
            for name, values in response.get("message_fields", {}).items():
                message.setdefault(name, []).extend(values)
        finish_reason, entries = builder.finish_reason(responses[-1]["finish_reason"]), read_logprobs(responses)
        logprobs = None if entries is None else chat_logprobs(entries)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}

    def events(self) -> Iterator[bytes | None]:
        """Yield the completion as chunks. All chunks for one model response are yielded together, in one item."""
        started: set[int] = set()
        for arrived in self._choices.responses(heartbeat=True):
            if arrived is None:
                yield None
                continue
            index, response = arrived
            role = {"role": "assistant", "content": "", "refusal": None}
            events = b"" if index in started else self._chunk(index, role)
            started.add(index)
            if events := events + self._chunks(index, response):
                yield events
        usage = self._usage()
        if self._with_usage:
            yield encode_event(self._base | {"object": "chat.completion.chunk", "choices": [], "usage": usage})
        yield DONE

    def _chunks(self, index: int, response: Mapping[str, Any]) -> bytes:
        builder, fields = self._builders[index], response.get("message_fields", {})
        entries = read_logprobs([response])
        logprobs, events = chat_logprobs(entries) if entries else None, b""
        deltas = builder.push(response["text_output"]) + (
            builder.end(response["finish_reason"]) if "finish_reason" in response else []
        )
        for delta in deltas or ([{"content": ""}] if logprobs else []):
            events += self._chunk(index, delta | fields, logprobs)
            logprobs = None
        if "finish_reason" in response:
            events += self._chunk(index, {}, finish_reason=builder.finish_reason(response["finish_reason"]))
            self._count(index, response)
        return events

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        no_usage = {"usage": None} if self._with_usage else {}
        return encode_event(self._base | {"object": "chat.completion.chunk", "choices": [choice]} | no_usage)

    def _count(self, index: int, response: Mapping[str, Any]) -> None:
        if "finish_reason" in response:
            reasoning = response.get("num_reasoning_tokens")
            cached = response.get("num_cached_tokens")
            self._counts[index] = response["num_input_tokens"], response["num_output_tokens"], reasoning, cached

    def _usage(self) -> dict[str, Any]:
        prompts, completions, reasoning, cached = zip(*self._counts.values(), strict=True)
        prompt, completion = max(prompts), sum(completions)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._log_fields |= usage
        if counts := [count for count in cached if count is not None]:
            # The choices after the first find the prompt in the cache, because the first has computed it.
            usage["prompt_tokens_details"] = {"cached_tokens": min(counts)}
        reported = [count for count in reasoning if count is not None]
        return usage | ({"completion_tokens_details": {"reasoning_tokens": sum(reported)}} if reported else {})
