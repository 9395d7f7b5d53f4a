"""What POST /chat/completions takes."""

from typing import Any

from pydantic import Field, model_validator

from frontend.generation.sampling import SamplingFields, StreamOptions
from frontend.generation.structured_output import StructuredOutputFields
from frontend.generation.tools import Conversation, ToolFields
from frontend.http.body import reject_unsupported

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


class ChatCompletionRequest(ToolFields, StructuredOutputFields, SamplingFields):
    """The body of OpenAI's operation createChatCompletion, and the sampling fields vLLM's clients add to it."""

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

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, fields: dict[str, Any]) -> dict[str, Any]:
        reject_unsupported(fields, _UNSUPPORTED)
        return fields

    @property
    def count(self) -> int:
        """How many answers there are to be."""
        return self.n or 1

    @property
    def token_limit(self) -> int | None:
        """How long the answer may be; the newer of OpenAI's two names wins."""
        return self.max_completion_tokens or self.max_tokens

    def sampling_parameters(self, number: int = 0) -> dict[str, Any]:
        """Return what the backend is to sample choice `number` with."""
        more = {"logprobs": self.logprobs, "constraint": self.constraint()}
        given = {name: value for name, value in more.items() if value is not None}
        return super().sampling_parameters(number) | given
