"""The sampling fields that chat, completions and responses share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import orjson
from pydantic import AfterValidator, Field, field_validator, model_validator

from contract.options import GENERATION_DEFAULTS, SamplingParameters
from frontend.errors import EngineFailure, InvalidRequest
from frontend.generation.structured_output import GUARANTEES
from frontend.http.body import RequestBody, reject_unsupported
from frontend.services import services
from frontend.triton.model import Model

# Minimum of `top_p` and `repetition_penalty`: the engine computes in float32, where far smaller values are zero.
_SMALLEST = 1e-6

# Fields that have the same name in the backend's sampling parameters.
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
    "seed",
    "stop",
)


# Maximum number of tokens in `logit_bias`.
_MAX_BIASES = 1_024


def _checked_bias(bias: dict[str, float]) -> dict[str, float]:
    """Return `logit_bias` unchanged. Raises ValueError unless it maps at most 1,024 token IDs to -100 to 100."""
    if len(bias) > _MAX_BIASES:
        raise ValueError(f"must have at most {_MAX_BIASES} tokens")
    for token, value in bias.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise ValueError(f"must have token IDs as keys, not '{token[:20]}'")
        if not -100 <= value <= 100:
            raise ValueError(f"must have values from -100 to 100; that of '{token}' is {value}")
    return bias


LogitBias = Annotated[dict[str, float], AfterValidator(_checked_bias)]
"""A value from -100 to 100 for each of up to 1,024 token IDs."""

CACHE_KEY = (
    "Requests with the same key go to the same instance of the model, whose cache has the prompt (see docs/gateway.md)."
)
BIAS = "Token ID → value from -100 to 100 to add to the token's logit. Requires a model on llama.cpp."
"""The description of the field `logit_bias`."""


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool | None = Field(
        None, description="Send an additional last chunk with the token counts and without choices."
    )


class SamplingFields(RequestBody):
    """OpenAI's sampling fields, and the ones that vLLM adds."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Unsupported fields, each with the values that have no effect and are therefore accepted."""

    stream: bool = Field(False, description="Stream the response as server-sent events.")
    temperature: float | None = Field(
        None,
        ge=0,
        le=2,
        description="Sampling temperature; 0 always picks the most likely token. If omitted, the model's own default, "
        "or else 1.",
    )
    top_p: float | None = Field(
        None,
        ge=_SMALLEST,
        le=1,
        description="Sample from the smallest set of most likely tokens whose probabilities add up to at least this "
        "value. If omitted, the model's own default, or else 1.",
    )
    top_k: int | None = Field(
        None,
        ge=-1,
        description="Sample from this many of the most likely tokens; 0 and -1 mean all. If omitted, the model's own "
        "default, or else all.",
    )
    min_p: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Ignore tokens less likely than this fraction of the most likely token's probability.",
    )
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="Penalty per previous occurrence of a token in the output. 0 if omitted."
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="Penalty for tokens that already occur in the output. 0 if omitted."
    )
    repetition_penalty: float | None = Field(
        None,
        ge=_SMALLEST,
        le=2,
        description="Above 1, tokens that occur in the prompt or the output become less likely; below 1, more likely. "
        "If omitted, the model's own default, or else 1.",
    )
    ignore_eos: bool | None = Field(
        None,
        description="Continue past end-of-sequence tokens, until the token limit or a stop string. Ignored if the "
        "output is constrained.",
    )
    min_tokens: int | None = Field(
        None,
        ge=0,
        description="Generate no end-of-sequence token before this many tokens. Ignored if the output is constrained.",
    )
    seed: int | None = Field(
        None,
        ge=-(2**63),
        lt=2**63,
        description="Random seed. The same seed yields the same text, except for rounding differences when requests "
        "share a batch. If the request has several choices, the first uses this seed, the second this seed + 1, and so "
        "on.",
    )
    stop: list[str] | None = Field(
        None,
        max_length=16,
        description="Up to 16 strings. The text ends before the first of them that the model generates. A single "
        "string is accepted too.",
    )

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, fields: dict[str, Any]) -> dict[str, Any]:
        others = {name: values for name, values in GUARANTEES.items() if name not in cls.model_fields}
        reject_unsupported(fields, {**others, **cls.unsupported})
        return fields

    @field_validator("stop", mode="before")
    @classmethod
    def _accept_one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop", mode="after")
    @classmethod
    def _reject_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and "" in value:
            raise ValueError("must not contain empty strings")
        return value

    @property
    def token_limit(self) -> int | None:
        """The maximum number of output tokens, or None for the rest of the model's context."""
        raise NotImplementedError

    def _require_all_logits(self, model: Model, name: str) -> None:
        """Raise InvalidRequest unless the model's engine supports the field `name`."""
        if not model.has_all_logits:
            engine = f"{model.engine}, the engine of '{model.id}'" if model.task == "chat" else f"'{model.id}'"
            raise InvalidRequest(
                f"'{name}' is not supported by {engine}; chat models on llama.cpp support it (see GET /v1/models)",
                param=name,
                code="unsupported_parameter",
            )

    def sampling_parameters(self, model: Model, choice: int = 0) -> SamplingParameters:
        """Return the backend's sampling parameters for the choice with this index.

        Parameters that the request does not set have the model's own defaults, or are omitted. The choice's seed, if
        any, is `seed` + `choice`. Raises EngineFailure if the model's configuration is faulty.
        """
        given = {name: getattr(self, name) for name in _SAMPLING} | {"max_tokens": self.token_limit}
        if self.seed is not None:
            given["seed"] = self.seed + choice
        if bias := getattr(self, "logit_bias", None):
            self._require_all_logits(model, "logit_bias")
            given["logit_bias"] = bias
        chosen = {name: value for name, value in given.items() if value is not None}
        return cast(SamplingParameters, generation_defaults(model) | chosen)


def generation_defaults(model: Model) -> dict[str, float]:
    """Return the sampling parameters that the publisher of a model recommends, unless the setting excludes them.

    Raises EngineFailure if the model's configuration is faulty.
    """
    if services().settings.generation_defaults == "openai":
        return {}
    text = model.parameters.get("generation_defaults", "{}")
    try:
        defaults = orjson.loads(text)
        if not all(name in GENERATION_DEFAULTS and isinstance(defaults[name], int | float) for name in defaults):
            raise ValueError
    except (orjson.JSONDecodeError, ValueError, TypeError):
        raise EngineFailure(
            f"The configuration of '{model.name}' must set 'generation_defaults' to a JSON object with numbers for "
            f"some of: {', '.join(GENERATION_DEFAULTS)}"
        ) from None
    return dict(defaults)
