"""The request body of POST /chat/completions, and the messages and log probabilities in its response."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from contract.options import SamplingParameters
from frontend.errors import InvalidRequest
from frontend.generation.messages import Conversation
from frontend.generation.sampling import BIAS, CACHE_KEY, LogitBias, SamplingFields, StreamOptions
from frontend.generation.structured_output import StructuredOutputFields
from frontend.generation.tools import ToolFields
from frontend.parsing.events import Event, ReasoningDelta, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart
from frontend.parsing.pipeline import ParserPipeline
from frontend.triton.model import Model


class ChatCompletionRequest(ToolFields, StructuredOutputFields, SamplingFields):
    """The request body of OpenAI's createChatCompletion, with additional fields of vLLM and other servers."""

    unsupported: ClassVar = {
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
    }

    model: str = Field(description="ID, name or alias of the model.")
    messages: Conversation = Field(description="The conversation, oldest message first.")
    stream_options: StreamOptions | None = Field(
        None, description="Options of a stream; rejected unless the response is streamed."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Maximum number of output tokens. If omitted, only the context limits the output."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, description="OpenAI's newer name for `max_tokens`; takes precedence if both are given."
    )
    n: int = Field(1, ge=1, le=8, description="Number of choices; must be 1 for OCR and transcription models.")
    logprobs: bool = Field(False, description="Return the log probability of each output token, except special tokens.")
    top_logprobs: int = Field(
        0,
        ge=0,
        le=20,
        description="Return this many of the most likely tokens with each token. Requires `logprobs` and, above 0, a "
        "model on llama.cpp.",
    )
    logit_bias: LogitBias | None = Field(None, description=BIAS)
    prompt_cache_key: str | None = Field(None, max_length=512, description=CACHE_KEY)
    user: str | None = Field(None, description="Ignored.")
    metadata: dict[str, str] | None = Field(
        None, description='With OCR models, `{"boxes": "true"}` adds the positions of the text. Otherwise ignored.'
    )

    @property
    def token_limit(self) -> int | None:
        """The maximum number of output tokens; None if only the model's context limits the output."""
        return self.max_completion_tokens or self.max_tokens

    def sampling_parameters(self, model: Model, choice: int = 0) -> SamplingParameters:
        """Return the backend's sampling parameters for the choice with this index."""
        parameters = super().sampling_parameters(model, choice)
        if self.top_logprobs:
            self._require_all_logits(model, "top_logprobs")
        return parameters | {"logprobs": True, "top_logprobs": self.top_logprobs} if self.logprobs else parameters

    @model_validator(mode="after")
    def _requires_logprobs(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("'top_logprobs' requires 'logprobs': true", param="top_logprobs")
        return self


Delta = dict[str, Any]


class MessageBuilder:
    """Parses the text of one choice, and builds its message and, for a stream, its deltas."""

    def __init__(self, pipeline: ParserPipeline):
        self._pipeline = pipeline
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def push(self, text: str) -> list[Delta]:
        """Add new model text, and return the deltas for it."""
        return [self._add(event) for event in self._pipeline.push(text)]

    def end(self, model_reason: str) -> list[Delta]:
        """Add the text that the parsers held back, and return the deltas for it. Call once, after the last push.

        `model_reason` is why the model's output has ended: `stop` or `length`.
        """
        return [self._add(event) for event in self._pipeline.end(model_reason == "length")]

    def finish_reason(self, model_reason: str) -> str:
        """Return OpenAI's finish_reason: `tool_calls` instead of the model's `stop` if the message has tool calls."""
        return "tool_calls" if self._calls and model_reason == "stop" else model_reason

    def message(self) -> dict[str, Any]:
        """Return the complete message."""
        content = "".join(self._content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["content"] = content or None
            message["tool_calls"] = list(self._calls.values())
        return message

    def _add(self, event: Event) -> Delta:
        match event:
            case TextDelta(text):
                self._content.append(text)
                return {"content": text}
            case ReasoningDelta(text):
                self._reasoning.append(text)
                return {"reasoning_content": text}
            case ToolCallStart(call_index, id, name):
                self._calls[call_index] = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                started = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                return {"tool_calls": [{"index": call_index} | started]}
            case ToolCallArguments(call_index, text):
                self._calls[call_index]["function"]["arguments"] += text
                return {"tool_calls": [{"index": call_index, "function": {"arguments": text}}]}
            case ToolCallAborted(call_index, text):
                # A stream cannot retract the deltas that it has sent for this call. The text of the call follows as
                # content, and finish_reason becomes `tool_calls` only if the message has another call.
                del self._calls[call_index]
                self._content.append(text)
                return {"content": text}


def chat_logprobs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return log probabilities in the format of chat completions."""
    return {"content": [{"top_logprobs": [], **entry} for entry in entries], "refusal": None}
