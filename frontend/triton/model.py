"""A model, as its configuration in Triton describes it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from frontend.errors import EngineFailure

READY, UNAVAILABLE, UNLOADED, UNLOADING = "READY", "UNAVAILABLE", "UNLOADED", "UNLOADING"
_ENGINES = {"llamacpp": "llama.cpp", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Model:
    """A model that Triton has loaded or can load. `name` is its name in Triton, `id` its ID in the API.

    `state` is READY, UNAVAILABLE while Triton does not respond, or UNLOADED if the model is loaded on demand.
    """

    name: str
    id: str
    task: str
    owned_by: str
    created: int
    capabilities: tuple[str, ...] = ()
    inputs: tuple[str, ...] = field(default=(), repr=False)
    batched: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All parameters in the model's configuration."""
    fingerprint: str = ""
    """The `system_fingerprint` in responses: a hash of the model's configuration."""
    state: str = READY
    aliases: tuple[str, ...] = ()
    """Further IDs of the model."""
    adapter: str = ""
    """The name of the LoRA adapter, if this is a model with one: ID and names end with a colon and that name."""

    @property
    def identity(self) -> str:
        """What the model computes: its weights, engine and precision. It is equal on all machines.

        Models that were not exported have no record of that, so their whole configuration counts.
        """
        return f"{self.id} {self.task} {self.parameters.get('fingerprint') or self.fingerprint}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a request finds the model."""
        return (f"{self.name}:{self.adapter}" if self.adapter else self.name, self.id)

    def with_adapters(self) -> list["Model"]:
        """Return the model, and a model for each of its LoRA adapters."""
        names: list[str] = orjson.loads(self.parameters.get("adapters", "[]"))
        return [
            self,
            *(
                replace(
                    self,
                    adapter=name,
                    id=f"{self.id}:{name}",
                    aliases=tuple(f"{alias}:{name}" for alias in self.aliases),
                    fingerprint=_hash(f"{self.fingerprint}:{name}"),
                )
                for name in names
            ),
        ]

    def serves(self, task: str) -> bool:
        """Return whether the model has this task or capability."""
        return task == self.task or task in self.capabilities

    @property
    def engine(self) -> str:
        """The engine of a chat model, as users know it."""
        return "vLLM" if self.uses_vllm else _ENGINES.get(self.parameters.get("engine", ""), "OpenVINO")

    @property
    def has_all_logits(self) -> bool:
        """Whether the model's engine supports `logit_bias` and `top_logprobs`."""
        return self.engine == _ENGINES["llamacpp"]

    @property
    def uses_vllm(self) -> bool:
        """Whether the model runs on Triton's stock vLLM backend (see vllm.py), recognized by the input `text_input`."""
        return self.task == "chat" and "text_input" in self.inputs

    def int_parameter(self, name: str) -> int:
        """Return an integer parameter of the configuration. Raises EngineFailure if it is missing or malformed."""
        try:
            return int(self.parameters[name])
        except (KeyError, ValueError):
            raise EngineFailure(f"The configuration of '{self.name}' must set '{name}' to an integer") from None


def read_model(name: str, config: Any) -> Model | None:
    """Return the model that Triton's ModelConfig describes, or None if it has no task: the API omits such models."""
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    if "task" not in parameters:
        return None
    return Model(
        name=name,
        id=parameters.get("id", name),
        task=parameters["task"],
        owned_by=parameters.get("owned_by", "unknown"),
        created=int(parameters.get("created", 0)),
        capabilities=tuple(orjson.loads(parameters.get("capabilities", "[]"))),
        aliases=tuple(orjson.loads(parameters.get("aliases", "[]"))),
        inputs=tuple(tensor.name for tensor in config.input),
        batched=config.max_batch_size > 0,
        parameters=parameters,
        fingerprint=_hash(config.SerializeToString(deterministic=True)),
    )


def _hash(content: str | bytes) -> str:
    return "fp_" + hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:10]
