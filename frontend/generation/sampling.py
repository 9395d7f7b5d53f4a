"""How text is to be generated: the fields that chat, completions and responses have in common."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator, model_validator

from contract.options import SamplingParameters
from frontend.http.body import RequestBody, reject_unsupported

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
    "seed",
    "stop",
)


class StreamOptions(RequestBody):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class SamplingFields(RequestBody):
    """OpenAI's sampling fields, and those vLLM's clients add to them."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Fields that are not served, each with the values that ask for nothing and so are accepted."""

    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=_SMALLEST, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, lt=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=_SMALLEST, le=2)
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[str] | None = Field(None, max_length=4)

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, fields: dict[str, Any]) -> dict[str, Any]:
        reject_unsupported(fields, cls.unsupported)
        return fields

    @field_validator("stop", mode="before")
    @classmethod
    def _accept_one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop", mode="after")
    @classmethod
    def _reject_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and "" in value:
            raise ValueError("a stop string may not be empty")
        return value

    @property
    def token_limit(self) -> int | None:
        """How long the answer may be; None: as long as the model's context has room."""
        raise NotImplementedError

    def sampling_parameters(self, number: int = 0) -> SamplingParameters:
        """Return what the backend is to sample choice `number` with; what is absent has OpenAI's defaults.

        Choices differ where the request has a seed: each has the next one.
        """
        given = {name: getattr(self, name) for name in _SAMPLING} | {"max_tokens": self.token_limit}
        if self.seed is not None:
            given["seed"] = self.seed + number
        return cast(SamplingParameters, {name: value for name, value in given.items() if value is not None})
