"""POST /completions (OpenAI's createCompletion): continues prompts.

The response is one JSON object or a stream.
"""

import codecs
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Blueprint, Response

from contract.tensors import CHAT
from frontend.endpoints.completions.protocol import CompletionRequest
from frontend.errors import InvalidRequest, located
from frontend.generation.routing import start_prompt
from frontend.http.body import read_body
from frontend.http.respond import DONE, Closable, StreamedResponse, encode_event, json_response
from frontend.inference.response_stream import ResponseStream, read_logprobs, start_all
from frontend.services import require_model
from frontend.triton.model import Model

blueprint = Blueprint("completions", __name__)

_LAST = CHAT.last_output


@blueprint.post("/completions")
def create_completion() -> Response:
    """Return `n` continuations of each prompt.

    The HTTP status is sent only when every choice has its first model output. An error before then is returned with its
    own HTTP status.
    """
    body = read_body(CompletionRequest)
    if body.stream_options and not body.stream:
        raise InvalidRequest("'stream_options' requires 'stream': true", param="stream_options")
    model = require_model(body.model, "chat")
    completion = Completion(model, _start(model, body), body)
    return completion.event_stream() if body.stream else json_response(completion.body())


def _start(model: Model, body: CompletionRequest) -> "_Streams":
    """Start all choices and wait for the first model output of each.

    The `param` of an error names the prompt that caused it.
    """
    choices = [(path, prompt, index) for path, prompt in body.prompts.items() for index in range(body.n)]
    start = [
        partial(start_prompt, model, prompt, body.sampling_parameters(model, index)) for _, prompt, index in choices
    ]

    def rename(path: str, name: str | None) -> str | None:
        """Return `name` with `prompt` at its start replaced with `path`; return any other name unchanged."""
        return path + name.removeprefix("prompt") if name and name.startswith("prompt") else name

    return _Streams(start_all(start, _LAST, lambda index: located(partial(rename, choices[index][0]))))


class _Streams(list[ResponseStream], Closable):
    """The response streams of all choices. The engine generates the choices in parallel."""

    def close(self) -> None:
        for stream in self:
            stream.close()


class CompletionLogprobs:
    """Converts the log probabilities of one choice, response by response, to OpenAI's format for completions."""

    def __init__(self) -> None:
        # A character may span several tokens. The text offset advances only at the last of the character's tokens.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def convert(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return OpenAI's `logprobs` object for the next tokens."""
        offsets, has_top = [], any(entry.get("top_logprobs") for entry in entries)
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(bytes(entry["bytes"])))
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [_by_token(entry.get("top_logprobs")) for entry in entries] if has_top else None,
            "text_offset": offsets,
        }


def _by_token(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, float] | None:
    """Return the log probabilities by token. If several look the same, the first one counts."""
    return {entry["token"]: entry["logprob"] for entry in reversed(entries)} if entries else None


class Completion(StreamedResponse):
    """The response to one request: `n` choices per prompt, in prompt order."""

    def __init__(self, model: Model, streams: _Streams, body: CompletionRequest):
        super().__init__(streams)
        self._streams, self._per_prompt = streams, body.n
        self._with_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._base = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": model.fingerprint,
        }
        self._cached: dict[int, int] = {}  # index of a prompt → its tokens that were cached for all choices
        self._usage: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    def body(self) -> dict[str, Any]:
        """Return all choices as one `text_completion` object. Raises APIError if a choice fails."""
        try:
            choices = [self._complete_choice(index, stream) for index, stream in enumerate(self._streams)]
        finally:
            self._streams.close()
        return self._base | {"choices": choices, "usage": self._usage}

    def _complete_choice(self, index: int, stream: ResponseStream) -> dict[str, Any]:
        responses = [response for response in stream.responses() if response]
        self._count(index, responses[-1])
        text = "".join(response["text_output"] for response in responses)
        return _choice(index, text, responses[-1][_LAST], CompletionLogprobs(), responses)

    def events(self) -> Iterator[bytes | None]:
        """Yield all chunks of the first choice, then all chunks of the second, and so on."""
        no_usage = {"usage": None} if self._with_usage else {}
        for index, stream in enumerate(self._streams):
            logprobs = CompletionLogprobs()
            for response in stream.responses(heartbeat=True):
                if response is None:
                    yield None
                    continue
                finish_reason = response.get(_LAST)
                if finish_reason:
                    self._count(index, response)
                choice = _choice(index, response["text_output"], finish_reason, logprobs, [response])
                yield encode_event(self._base | {"choices": [choice]} | no_usage)
        if self._with_usage:
            yield encode_event(self._base | {"choices": [], "usage": self._usage})
        yield DONE

    def _count(self, index: int, last: dict[str, Any]) -> None:
        """Add the tokens of a choice to the usage; a prompt counts once, regardless of its number of choices."""
        prompt = index // self._per_prompt
        if index % self._per_prompt == 0:
            self._usage["prompt_tokens"] += last["num_input_tokens"]
        if (cached := last.get("num_cached_tokens")) is not None:
            # One choice computes the prompt, and the others may share it.
            self._cached[prompt] = min(cached, self._cached.get(prompt, cached))
            self._usage["prompt_tokens_details"] = {"cached_tokens": sum(self._cached.values())}
        self._usage["completion_tokens"] += last["num_output_tokens"]
        self._usage["total_tokens"] = self._usage["prompt_tokens"] + self._usage["completion_tokens"]
        self._log_fields |= {name: count for name, count in self._usage.items() if name.endswith("_tokens")}


def _choice(
    index: int,
    text: str,
    finish_reason: str | None,
    logprobs: CompletionLogprobs,
    responses: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    entries = read_logprobs(responses)
    converted = None if entries is None else logprobs.convert(entries)
    return {"index": index, "text": text, "logprobs": converted, "finish_reason": finish_reason}
