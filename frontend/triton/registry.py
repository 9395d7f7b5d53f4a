"""The registry of models and their tasks, read from the models' configurations in Triton."""

import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol

import orjson

from frontend.errors import APIError, DeadlineExceeded, EngineFailure, InvalidRequest, ModelNotFound, Unavailable
from frontend.settings import Settings
from frontend.triton.client import ModelState, read_config

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
_PROBE_SECONDS = 3.0
_BUSY_SECONDS = 10.0
_READY, _UNLOADED = "READY", "UNLOADED"
_ENGINES = {"llamacpp": "llama.cpp", "openvino": "OpenVINO"}


class Triton(Protocol):
    """The part of the Triton client that the registry uses."""

    def index(self) -> list[ModelState]: ...
    def config(self, model: str) -> Any: ...
    def probe(self, model: str, inputs: Sequence[str], *, batched: bool, timeout: float) -> None: ...


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
    state: str = _READY
    adapter: str = ""
    """The name of the LoRA adapter, if this is a model with one: ID and names end with a colon and that name."""

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
                replace(self, adapter=name, id=f"{self.id}:{name}", fingerprint=_hash(f"{self.fingerprint}:{name}"))
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


class Registry:
    """Finds models by name, ID, alias or task. Reads Triton's index of models at most once a second."""

    def __init__(self, settings: Settings, triton: Triton):
        self._settings, self._triton = settings, triton
        self._aliases = {name.casefold(): target for name, target in settings.all_aliases.items()}
        self._lock = threading.Lock()
        self._models: dict[str, Model] = {}
        # Models that are not loaded, and the modification times of their configurations.
        self._unloaded: dict[str, tuple[int, Model | None]] = {}
        self._read_at = float("-inf")
        self._responded_at: dict[str, float] = {}

    def models(self) -> list[Model]:
        """Return the loaded models: first those in `settings.models`, in that order, then all others, sorted by name.

        While Triton does not respond, return the last known models as UNAVAILABLE. Raises Unavailable if there are no
        models to return.
        """
        if time.monotonic() - self._read_at >= _FRESH_SECONDS and (not self._models or not self._lock.locked()):
            with self._lock:
                self._refresh()
        if not self._models:
            raise Unavailable("Model not initialized")
        return [model for base in self._models.values() for model in base.with_adapters()]

    def require(self, name: str | None, *tasks: str) -> Model:
        """Return the model that `name` refers to; it must serve one of `tasks`. A capability counts as a task.

        `name` is a model's name or ID, one of `tasks`, or an alias of one of these. Upper and lower case do not matter,
        except for tasks. If it is a task, the result is the first of the models with this task that serve the most of
        the first ones of `tasks`. None selects the first model of the first task that has a loaded model. If the
        setting `unknown_model` is `default`, so does an unknown name.

        Raises InvalidRequest if the model serves none of `tasks`. Raises Unavailable if no loaded model serves the
        task, or if the model is in `settings.models` but not loaded. Raises ModelNotFound if the name is unknown.
        """
        models = self.models()
        target = self._aliases.get(name.casefold(), name) if name is not None else None
        found = next((m for m in models if target in m.names), None) or self._in_any_case(models, target)
        if found is None and (target in (None, *tasks) or self._settings.unknown_model == "default"):
            wanted = (target,) if target in tasks else tasks
            found = next((m for task in wanted for m in _best_first(models, tasks) if m.serves(task)), None)
            if found is None:
                raise Unavailable(f"No {wanted[0]} model is loaded")
        if found is None:
            self._raise_unknown(str(name), target)
        if not any(found.serves(task) for task in tasks):
            raise InvalidRequest(
                f"The model '{name}' does not support {tasks[0]}; its task is {found.task}", param="model"
            )
        return found

    def get(self, name: str) -> Model:
        """Return the first model with this name, ID, alias or task. Raises ModelNotFound or Unavailable."""
        target = self._aliases.get(name.casefold(), name)
        models = self.models()
        for model in models:
            if target in (*model.names, model.task):
                return model
        if found := self._in_any_case(models, target):
            return found
        raise ModelNotFound(name)

    def _in_any_case(self, models: Sequence[Model], name: str | None) -> Model | None:
        """Return the first model whose name or ID differs from `name` only in upper and lower case, if any."""
        wanted = (name or "").casefold()
        return next((model for model in models if wanted in map(str.casefold, model.names)), None)

    def state(self, name: str) -> str | None:
        """Return the state of a model, as it was last read, or None if the model is unknown."""
        return self._models[name].state if name in self._models else None

    def refresh(self) -> None:
        """Read Triton's index again, because a model was loaded or unloaded."""
        with self._lock:
            self._read_at = float("-inf")
            self._refresh()

    def record_response(self, model: Model) -> None:
        """Record the current time as the time of the model's last response to a request."""
        self._responded_at[model.name] = time.monotonic()

    def unresponsive_models(self) -> list[str]:
        """Return the names of required models that are not loaded or do not respond.

        The required models are the models in `settings.models`, or all loaded models if that setting is empty. Raises
        Unavailable if no model is loaded.
        """
        self.models()
        models = self._models
        required = self._settings.models or tuple(models)
        return [name for name in required if name not in models or not self._responds(models[name])]

    def _responds(self, model: Model) -> bool:
        if model.state == _UNLOADED:
            return False
        if model.uses_vllm:
            return model.state == _READY  # the vLLM backend has no probe, but Triton unloads a model whose engine fails
        try:
            self._triton.probe(model.name, model.inputs, batched=model.batched, timeout=_PROBE_SECONDS)
        except DeadlineExceeded:
            # A probe of a batched model queues behind requests, so a busy model may not respond to the probe in time.
            # In that case, a recent response to a request shows that the model works.
            return time.monotonic() - self._responded_at.get(model.name, float("-inf")) < _BUSY_SECONDS
        except APIError as error:
            log.warning("the probe of %s failed: %s", model.name, error)
            return isinstance(error, InvalidRequest)
        return True

    def _raise_unknown(self, name: str, target: str | None) -> NoReturn:
        base = (target or "").rpartition(":")[0]  # of an adapter
        if {(target or "").casefold(), base.casefold()} & set(map(str.casefold, self._settings.models)):
            raise Unavailable(f"The model '{name}' is not currently loaded")
        raise ModelNotFound(name)

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < _FRESH_SECONDS:
            return
        known = {name: model for name, model in self._models.items() if model.state == _READY}
        try:
            index = self._triton.index()
            ready = [model.name for model in index if model.state == _READY]
            models = {name: known.get(name) or self._read(name) for name in self._in_order(ready)}
            if self._settings.models_on_demand:
                others = sorted(model.name for model in index if model.state != _READY)
                models |= {name: self._read_unloaded(name) for name in others}
        except APIError as error:
            log.warning("Triton is not responding: %s", error)
            self._models = {name: replace(model, state="UNAVAILABLE") for name, model in self._models.items()}
        else:
            self._models = {name: model for name, model in models.items() if model}
        self._read_at = time.monotonic()

    def _in_order(self, names: list[str]) -> list[str]:
        order = {name: position for position, name in enumerate(self._settings.models)}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    def _read(self, name: str) -> Model | None:
        """Return a loaded model, or None if the model has no task: the API omits such models."""
        return self._from_config(name, self._triton.config(name))

    def _read_unloaded(self, name: str) -> Model | None:
        """Return a model that is not loaded, or None if it has no task or no valid configuration."""
        path = self._settings.served_repository / name / "config.pbtxt"
        try:
            changed_at = path.stat().st_mtime_ns
            known_at, model = self._unloaded.get(name, (0, None))
            if known_at != changed_at:
                model = self._from_config(name, read_config(path))
                self._unloaded[name] = changed_at, model
        except (OSError, ValueError) as error:
            log.warning("%s: %s", name, error)
            return None
        return model and replace(model, state=_UNLOADED)

    def _from_config(self, name: str, config: Any) -> Model | None:
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
            inputs=tuple(tensor.name for tensor in config.input),
            batched=config.max_batch_size > 0,
            parameters=parameters,
            fingerprint=_hash(config.SerializeToString(deterministic=True)),
        )


def _hash(content: str | bytes) -> str:
    return "fp_" + hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:10]


def _best_first(models: Sequence[Model], tasks: Sequence[str]) -> list[Model]:
    return sorted(models, key=lambda model: [not model.serves(task) for task in tasks])
