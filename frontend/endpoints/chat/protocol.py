"""What POST /chat/completions takes."""

from typing import ClassVar

from pydantic import Field

from contract.options import SamplingParameters
from frontend.generation.messages import Conversation
from frontend.generation.sampling import SamplingFields, StreamOptions
from frontend.generation.structured_output import StructuredOutputFields
from frontend.generation.tools import ToolFields


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
