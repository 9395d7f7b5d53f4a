"""What POST /chat/completions takes, and the message it answers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from contract.options import SamplingParameters
from frontend.generation.messages import Conversation
from frontend.generation.sampling import SamplingFields, StreamOptions
from frontend.generation.structured_output import StructuredOutputFields
from frontend.generation.tools import ToolFields
from frontend.parsing.events import Event, ReasoningDelta, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart
from frontend.parsing.pipeline import ParserPipeline


class ChatCompletionRequest(ToolFields, StructuredOutputFields, SamplingFields):
    """The body of OpenAI's operation createChatCompletion, and the sampling fields vLLM's clients add to it."""

    unsupported: ClassVar = {
        "functions": ([],),
        "function_call": ("none", "auto"),
        "top_logprobs": (0,),
        "logit_bias": ({},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
    }

    model: str
    messages: Conversation
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=8)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    user: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def count(self) -> int:
        """How many answers there are to be."""
        return self.n or 1

    @property
    def token_limit(self) -> int | None:
        """How long the answer may be; the newer of OpenAI's two names wins."""
        return self.max_completion_tokens or self.max_tokens

    def sampling_parameters(self, number: int = 0) -> SamplingParameters:
        """Return what the backend is to sample choice `number` with."""
        parameters = super().sampling_parameters(number)
        return parameters if self.logprobs is None else parameters | {"logprobs": self.logprobs}


Delta = dict[str, Any]


class MessageBuilder:
    """Folds one answer, as the events of its text come, into a message, whole and in deltas."""

    def __init__(self, pipeline: ParserPipeline):
        self._pipeline = pipeline
        self._content: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def push(self, text: str) -> list[Delta]:
        """Return the deltas of more text."""
        return [self._fold(piece) for piece in self._pipeline.push(text)]

    def end(self) -> list[Delta]:
        """Return the deltas of what was kept back, when no more text will come."""
        return [self._fold(piece) for piece in self._pipeline.end()]

    def finish_reason(self, of_the_model: str) -> str:
        """Return OpenAI's finish_reason: a model that called has not just stopped."""
        return "tool_calls" if self._calls and of_the_model == "stop" else of_the_model

    def message(self) -> dict[str, Any]:
        """Return the whole as a message."""
        content = "".join(self._content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["content"] = content or None
            message["tool_calls"] = list(self._calls.values())
        return message

    def _fold(self, piece: Event) -> Delta:
        match piece:
            case TextDelta(text):
                self._content.append(text)
                return {"content": text}
            case ReasoningDelta(text):
                self._thoughts.append(text)
                return {"reasoning_content": text}
            case ToolCallStart(call, id, name):
                self._calls[call] = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                started = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                return {"tool_calls": [{"index": call} | started]}
            case ToolCallArguments(call, text):
                self._calls[call]["function"]["arguments"] += text
                return {"tool_calls": [{"index": call, "function": {"arguments": text}}]}
            case ToolCallAborted(call, text):
                # What a stream has sent it cannot take back; but it says what was written, and does not end in a call.
                del self._calls[call]
                self._content.append(text)
                return {"content": text}


def chat_logprobs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return them as chat has them; alternatives the engine does not tell."""
    return {"content": [{**entry, "top_logprobs": []} for entry in entries], "refusal": None}
