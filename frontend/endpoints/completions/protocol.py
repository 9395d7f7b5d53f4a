"""What POST /completions takes."""

from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from contract.options import SamplingParameters
from frontend.errors import InvalidRequest
from frontend.generation.sampling import SamplingFields, StreamOptions
from frontend.http.body import are_token_ids

# Answers that one request may ask for: as many as an engine steps at once.
_MAX_CHOICES = 64

# OpenAI's default, unlike chat's.
_DEFAULT_TOKENS = 16


class CompletionRequest(SamplingFields):
    """The body of OpenAI's operation createCompletion, and the sampling fields vLLM's clients add to it."""

    unsupported: ClassVar = {
        "suffix": ("",),
        "logprobs": (0,),  # more are alternatives, which the engine does not tell
        "prompt_logprobs": (),
        "logit_bias": ({},),
        "best_of": (1,),
        "response_format": ({"type": "text"},),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
    }

    model: str
    prompt: Any
    echo: bool | None = None
    logprobs: int | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1)
    user: str | None = None

    @field_validator("prompt", mode="plain")
    @classmethod
    def _check_prompt(cls, value: Any) -> Any:
        """Accept a string, token ids, or a list of either."""
        prompts = value if _is_list(value) else [value]
        if value is None or value == [] or "" in prompts or [] in prompts:
            raise InvalidRequest("The prompt is empty", param="prompt")
        if not (all(type(prompt) is str for prompt in prompts) or all(map(are_token_ids, prompts))):
            kinds = "a string, an array of strings, of token ids, or of arrays of token ids"
            raise InvalidRequest(f"The prompt must be {kinds}", param="prompt", code="invalid_type")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> "CompletionRequest":
        if self.echo and self.logprobs is not None:
            message = "Log probabilities of the prompt, which 'echo' would have, are not known"
            raise InvalidRequest(message, param="logprobs", code="unsupported_parameter")
        return self

    @model_validator(mode="after")
    def _bound_choices(self) -> "CompletionRequest":
        choices = len(self.prompts) * self.choices_per_prompt
        if choices > _MAX_CHOICES:
            message = f"A request has {_MAX_CHOICES} answers at most, not {choices}: prompts times n"
            raise InvalidRequest(message, param="n" if self.choices_per_prompt > 1 else "prompt")
        return self

    @property
    def prompts(self) -> dict[str, str | list[int]]:
        """The prompts in order, each under the name of the field that it stands in."""
        if _is_list(self.prompt):
            return {f"prompt[{place}]": prompt for place, prompt in enumerate(self.prompt)}
        return {"prompt": self.prompt}

    @property
    def choices_per_prompt(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    @property
    def token_limit(self) -> int:
        """How long each answer may be."""
        return self.max_tokens or _DEFAULT_TOKENS

    def sampling_parameters(self, number: int = 0) -> SamplingParameters:
        """Return what the backend is to sample choice `number` of a prompt with."""
        parameters = super().sampling_parameters(number) | {"stream": bool(self.stream), "echo": bool(self.echo)}
        return parameters if self.logprobs is None else parameters | {"logprobs": True}


def _is_list(value: Any) -> bool:
    """Return whether this is several prompts."""
    return isinstance(value, list) and not are_token_ids(value)
