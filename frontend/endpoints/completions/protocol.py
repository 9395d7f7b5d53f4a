"""The request body of POST /completions."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from contract.options import SamplingParameters
from frontend.errors import InvalidRequest
from frontend.generation.sampling import BIAS, LogitBias, SamplingFields, StreamOptions
from frontend.http.body import are_token_ids
from frontend.triton.model import Model

# Maximum number of choices of a request. It equals the default number of requests that an engine runs at once
# (`max_num_seqs`).
_MAX_CHOICES = 64

_PROMPT = [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]
_PROMPT_SCHEMA: dict[str, Any] = {"anyOf": [*_PROMPT, *({"type": "array", "items": kind} for kind in _PROMPT)]}


class CompletionRequest(SamplingFields):
    """The request body of OpenAI's createCompletion, with vLLM's additional sampling fields."""

    unsupported: ClassVar = {
        "suffix": ("",),
        "prompt_logprobs": (),
        "best_of": (1,),
    }

    model: str = Field(description="ID, name or alias of the model.")
    prompt: Annotated[Any, WithJsonSchema(_PROMPT_SCHEMA)] = Field(
        description="Text or token IDs to continue, or a list of either. The number of prompts times `n` is at most 64."
    )
    echo: bool = Field(False, description="Begin the text of each choice with the prompt.")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="Return the log probability of each output token except special tokens, and this many of the most "
        "likely tokens. With `echo`, also for the prompt. Both `echo` and values above 0 require a model on llama.cpp.",
    )
    logit_bias: LogitBias | None = Field(None, description=BIAS)
    stream_options: StreamOptions | None = Field(
        None, description="Options of a stream; rejected unless the response is streamed."
    )
    max_tokens: int = Field(16, ge=1, description="Maximum number of output tokens per choice.")
    n: int = Field(1, ge=1, description="Number of choices per prompt.")
    user: str | None = Field(None, description="Ignored.")

    @field_validator("prompt", mode="plain")
    @classmethod
    def _check_prompt(cls, value: Any) -> Any:
        """Accept a string, token IDs, a list of strings, or a list of token ID lists."""
        prompts = value if _is_list(value) else [value]
        if value is None or value == [] or "" in prompts or [] in prompts:
            raise InvalidRequest("'prompt' must not be empty", param="prompt")
        if not (all(type(prompt) is str for prompt in prompts) or all(map(are_token_ids, prompts))):
            kinds = "a string, an array of token IDs, or an array of either"
            raise InvalidRequest(f"'prompt' must be {kinds}", param="prompt", code="invalid_type")
        return value

    @model_validator(mode="after")
    def _limit_choices(self) -> "CompletionRequest":
        choices = len(self.prompts) * self.n
        if choices > _MAX_CHOICES:
            message = f"Too many choices: {choices} (prompts times 'n', limit {_MAX_CHOICES})"
            raise InvalidRequest(message, param="n" if self.n > 1 else "prompt")
        return self

    @property
    def prompts(self) -> dict[str, str | list[int]]:
        """The prompts in order, keyed by their paths in the request."""
        if _is_list(self.prompt):
            return {f"prompt[{index}]": prompt for index, prompt in enumerate(self.prompt)}
        return {"prompt": self.prompt}

    @property
    def token_limit(self) -> int:
        """The maximum number of output tokens of each choice."""
        return self.max_tokens

    def sampling_parameters(self, model: Model, choice: int = 0) -> SamplingParameters:
        """Return the backend's sampling parameters for a choice, given the index of the choice within its prompt."""
        parameters = super().sampling_parameters(model, choice) | {"stream": self.stream, "echo": self.echo}
        if self.logprobs is not None and (self.logprobs or self.echo):
            self._require_all_logits(model, "logprobs")
        return parameters if self.logprobs is None else parameters | {"logprobs": True, "top_logprobs": self.logprobs}


def _is_list(value: Any) -> bool:
    """Return whether `value` is a list of prompts, not a single prompt."""
    return isinstance(value, list) and not are_token_ids(value)
