"""What POST /chat/completions takes."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from frontend.endpoints.body import RequestBody
from frontend.endpoints.chat_constraint import GuidedFields
from frontend.endpoints.chat_tools import Conversation, ToolFields
from frontend.errors import InvalidRequest

# Fields that are not served, each with the values that ask for nothing and so are let through.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}


# The engine computes in float32, where what is much smaller is zero.
_SMALLEST = 1e-6

# Passed on to the backend as they are.
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "ignore_eos",
    "min_tokens",
    "logprobs",
    "seed",
    "stop",
)


class StreamOptions(RequestBody):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class ChatCompletionRequest(ToolFields, GuidedFields):
    """The body of OpenAI's operation createChatCompletion, and the sampling fields vLLM's clients add to it."""

    model: str
    messages: Conversation
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=_SMALLEST, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, lt=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=_SMALLEST, le=2)
    ignore_eos: bool | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[str] | None = Field(None, max_length=4)
    n: int | None = Field(None, ge=1, le=8)
    min_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    user: str | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, fields: dict[str, Any]) -> dict[str, Any]:
        for name, inert in _UNSUPPORTED.items():
            value = fields.get(name)
            if value is not None and value not in inert:
                raise InvalidRequest(f"'{name}' is not supported", param=name, code="unsupported_parameter")
        return fields

    @field_validator("stop", mode="before")
    @classmethod
    def _accept_one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop", mode="after")
    @classmethod
    def _refuse_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and "" in value:
            raise ValueError("a stop string may not be empty")
        return value

    @property
    def count(self) -> int:
        """How many answers there are to be."""
        return self.n or 1

    def sampling_parameters(self, number: int = 0) -> dict[str, Any]:
        """Return what the backend is to sample choice `number` with; what is absent has OpenAI's defaults.

        Choices differ where the request has a seed: each has the next one.
        """
        given = {name: getattr(self, name) for name in _SAMPLING}
        given["max_tokens"] = self.max_completion_tokens or self.max_tokens
        if self.seed is not None:
            given["seed"] = self.seed + number
        given["constraint"] = self.constraint()
        return {name: value for name, value in given.items() if value is not None}
