"""Which models there are and what they are for, as their configuration in Triton says."""

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
from frontend.triton.client import ModelState

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
_PROBE_SECONDS = 3.0
_BUSY_SECONDS = 10.0
_READY = "READY"


class Triton(Protocol):
    """What the registry needs of the client."""

    def index(self) -> list[ModelState]: ...
    def config(self, model: str) -> Any: ...
    def probe(self, model: str, inputs: Sequence[str], *, batched: bool, timeout: float) -> None: ...


@dataclass(frozen=True)
class Model:
    """A model that Triton has loaded. `name` is Triton's, `id` the API's."""

    name: str
    id: str
    task: str
    owned_by: str
    created: int
    capabilities: tuple[str, ...] = ()
    inputs: tuple[str, ...] = field(default=(), repr=False)
    batched: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What else its configuration says."""
    fingerprint: str = ""
    """Changes with the weights, the engine and its precision."""
    state: str = _READY

    def serves(self, task: str) -> bool:
        """Tell whether it is for this task, or has a capability of this name."""
        return task == self.task or task in self.capabilities

    @property
    def speaks_vllm(self) -> bool:
        """Whether it has the tensors of Triton's stock vLLM backend: see frontend/triton/vllm.py."""
        return self.task == "chat" and "text_input" in self.inputs

    def number(self, name: str) -> int:
        """Return one of `parameters` that is a whole number. Raises EngineFailure if it is not there."""
        try:
            return int(self.parameters[name])
        except (KeyError, ValueError):
            raise EngineFailure(f"The configuration of '{self.name}' has no number '{name}': export it again") from None


class Registry:
    """Finds models by name, id, alias or task. Asks Triton at most once a second."""

    def __init__(self, settings: Settings, triton: Triton):
        self._settings, self._triton = settings, triton
        self._aliases = settings.all_aliases
        self._lock = threading.Lock()
        self._models: dict[str, Model] = {}
        self._read_at = float("-inf")
        self._answered: dict[str, float] = {}

    def models(self) -> list[Model]:
        """Return the loaded models, in the order they were asked for.

        While Triton does not answer, those it had, as UNAVAILABLE. Raises Unavailable if it never did, or has none.
        """
        if time.monotonic() - self._read_at >= _FRESH_SECONDS and (not self._models or not self._lock.locked()):
            with self._lock:
                self._refresh()
        if not self._models:
            raise Unavailable("Model not initialized")
        return list(self._models.values())

    def require(self, name: str | None, *tasks: str) -> Model:
        """Return the model that `name` means for one of `tasks`; None means the default: the first of the first task
        that there is a model for. A capability counts as a task. Of the models of a task that `name` means, one that
        also serves the first of `tasks` is preferred.

        Raises ModelNotFound for an unknown name, InvalidRequest for a model of another task, Unavailable.
        """
        models = self.models()
        target = self._aliases.get(name, name) if name is not None else None
        found = next((m for m in models if target in (m.name, m.id)), None)
        if found is None and (target in (None, *tasks) or self._settings.unknown_model == "default"):
            wanted = (target,) if target in tasks else tasks
            found = next((m for task in wanted for m in _best_first(models, tasks[0]) if m.serves(task)), None)
            if found is None:
                raise Unavailable(f"No {wanted[0]} model is loaded")
        if found is None:
            self._raise_unknown(str(name), target)
        if not any(found.serves(task) for task in tasks):
            raise InvalidRequest(f"The model '{name}' is for {found.task}, not {tasks[0]}", param="model")
        return found

    def get(self, name: str) -> Model:
        """Return the model of this name, id or alias, whatever its task. Raises ModelNotFound, Unavailable."""
        target = self._aliases.get(name, name)
        for model in self.models():
            if target in (model.name, model.id, model.task):
                return model
        raise ModelNotFound(name)

    def note_answer(self, model: Model) -> None:
        """Remember that a model has just answered a request."""
        self._answered[model.name] = time.monotonic()

    def unanswering(self) -> list[str]:
        """Return the wanted models that do not answer a probe now. Raises Unavailable if Triton has none."""
        models = {model.name: model for model in self.models()}
        wanted = self._settings.models or tuple(models)
        return [name for name in wanted if name not in models or not self._answers(models[name])]

    def _answers(self, model: Model) -> bool:
        if model.speaks_vllm:
            return model.state == _READY  # it knows no probes; an engine that fails has its model unloaded
        try:
            self._triton.probe(model.name, model.inputs, batched=model.batched, timeout=_PROBE_SECONDS)
        except DeadlineExceeded:
            # In a batched model's queue a probe stands behind the requests: a busy model is not a dead one.
            return time.monotonic() - self._answered.get(model.name, float("-inf")) < _BUSY_SECONDS
        except APIError as error:
            log.warning("%s does not answer: %s", model.name, error)
            return isinstance(error, InvalidRequest)
        return True

    def _raise_unknown(self, name: str, target: str | None) -> NoReturn:
        if target in self._settings.models:
            raise Unavailable(f"The model '{name}' is not loaded now")
        raise ModelNotFound(name)

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < _FRESH_SECONDS:
            return
        known = {name: model for name, model in self._models.items() if model.state == _READY}
        try:
            ready = [model.name for model in self._triton.index() if model.state == _READY]
            models = {name: known.get(name) or self._read(name) for name in self._in_order(ready)}
        except APIError as error:
            log.warning("Triton does not answer: %s", error)
            self._models = {name: replace(model, state="UNAVAILABLE") for name, model in self._models.items()}
        else:
            self._models = {name: model for name, model in models.items() if model}
        self._read_at = time.monotonic()

    def _in_order(self, names: list[str]) -> list[str]:
        order = {name: place for place, name in enumerate(self._settings.models)}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    def _read(self, name: str) -> Model | None:
        """Read a model's configuration; None for one that is not meant for the API."""
        config = self._triton.config(name)
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
            fingerprint="fp_" + hashlib.sha256(config.SerializeToString(deterministic=True)).hexdigest()[:10],
        )


def _best_first(models: Sequence[Model], task: str) -> list[Model]:
    return sorted(models, key=lambda model: not model.serves(task))
