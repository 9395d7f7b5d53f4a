"""The registry of models and their tasks: the models of all Tritons together."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from frontend.errors import InvalidRequest, ModelNotFound, Unavailable
from frontend.instance_config import InstanceConfig, TritonAddress, group_by_address
from frontend.settings import Settings, with_default_aliases
from frontend.triton.instance import Instance
from frontend.triton.instances_file import current_instances
from frontend.triton.model import READY, Model
from frontend.triton.upstream import Upstream

log = logging.getLogger(__name__)


class Registry:
    """Finds models by name, ID, alias or task. Reads Triton's index of models at most once a second.

    `connect` returns the client of a Triton.
    """

    def __init__(self, settings: Settings, connect: Callable[[TritonAddress], Any]):
        self._settings, self.connect = settings, connect
        self.upstreams = list(map(self._new_upstream, group_by_address(current_instances(settings)).values()))
        """The Tritons, in the order in which the settings name them."""
        self._retired: list[Upstream] = []
        # The models of each Triton as last seen, and of all together.
        self._read: list[dict[str, Model]] = []
        self._found: dict[str, Model] = {}
        self._aliases: dict[str, str] = {}
        self._defaults: dict[str, str] = {}
        self._set_up: Callable[[Instance], None] = lambda _: None
        self.set_names(settings.aliases, {})

    def set_names(self, aliases: Mapping[str, str], defaults: Mapping[str, str]) -> None:
        """Use these aliases besides the built-in ones, and these default models of tasks, from now on."""
        self._aliases = {name.casefold(): target for name, target in with_default_aliases(aliases).items()}
        self._defaults = dict(defaults)

    def set_up_instances(self, set_up: Callable[[Instance], None]) -> None:
        """Call `set_up` with all instances, and from now on with each new one."""
        self._set_up = set_up
        for instance in self.instances():
            set_up(instance)

    def names_of(self, name: str, model: Model) -> bool:
        """Return whether a name that a request uses stands for a model: an alias of it, or of its task."""
        target = self._aliases.get(name.casefold(), name)
        return model.serves(target) or target.casefold() in map(str.casefold, (*model.names, *model.aliases))

    def models(self) -> list[Model]:
        """Return the loaded models: first those in `settings.models`, in that order, then all others, sorted by name.

        A model is READY if one of its instances is. While no Triton responds, return the last known models as
        UNAVAILABLE. Raises Unavailable if there are no models to return.
        """
        for upstream in self.upstreams:
            upstream.refresh()
        found = self._union()
        if not found:
            raise Unavailable("Model not initialized")
        return [model for name in self._in_order(found) for model in found[name].with_adapters()]

    def instances(self, name: str | None = None) -> list[Instance]:
        """Return the instances of the model with this name in Triton, or all instances."""
        found = [upstream.instances for upstream in self.upstreams]
        if name is not None:
            return [instances[name] for instances in found if name in instances]
        return [instance for instances in found for instance in instances.values()]

    def upstream_of(self, instance: Instance) -> Upstream | None:
        """Return the Triton of an instance, or None if the instance was removed."""
        return next((each for each in self.upstreams if instance in each.instances.values()), None)

    def configure(self, instances: Sequence[InstanceConfig]) -> list[Upstream]:
        """Apply changed settings: add, change and remove instances while the others go on. Return the new Tritons."""
        self._retired = [upstream for upstream in self._retired if not upstream.is_closed]
        known = {upstream.address: upstream for upstream in (*self._retired, *self.upstreams)}
        wanted = group_by_address(instances)
        added = {address: self._new_upstream(each) for address, each in wanted.items() if address not in known}
        for upstream in added.values():
            upstream.begins_slowly = True
        self.upstreams = [known.get(address) or added[address] for address in wanted]
        for address, upstream in known.items():
            if address in wanted:
                upstream.configure(wanted[address])
            elif upstream not in self._retired:
                upstream.retire()
        self._retired = [upstream for address, upstream in known.items() if address not in wanted]
        return list(added.values())

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
            found = self._default(models, wanted) or next(
                (m for task in wanted for m in _best_first(models, tasks) if m.serves(task)), None
            )
            if found is None:
                raise Unavailable(f"No {wanted[0]} model is loaded")
        if found is None:
            self._raise_unknown(str(name), target)
        if not any(found.serves(task) for task in tasks):
            raise InvalidRequest(
                f"The model '{name}' does not support {tasks[0]}; its task is {found.task}", param="model"
            )
        return found

    def _default(self, models: Sequence[Model], tasks: Sequence[str]) -> Model | None:
        """Return the configured default model of the first of these tasks that has one, if it is loaded."""
        for task in tasks:
            if name := self._defaults.get(task):
                target = self._aliases.get(name.casefold(), name)
                found = self._in_any_case(models, target)
                if found and found.serves(task):
                    return found
        return None

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

    def _new_upstream(self, configs: Sequence[InstanceConfig]) -> Upstream:
        return Upstream(
            configs, self.connect(configs[0].address), self._settings, lambda instance: self._set_up(instance)
        )

    def _in_any_case(self, models: Sequence[Model], name: str | None) -> Model | None:
        """Return the first model whose name or ID, or else an alias, is `name` in upper or lower case, if any."""
        wanted = (name or "").casefold()
        named = (model for model in models if wanted in map(str.casefold, model.names))
        return next(named, None) or next((m for m in models if wanted in map(str.casefold, m.aliases)), None)

    def state(self, name: str) -> str | None:
        """Return the state of a model, as it was last read, or None if the model is unknown."""
        found = self._union()
        return found[name].state if name in found else None

    def refresh(self) -> None:
        """Read the indexes of all Tritons again, because a model was loaded or unloaded."""
        for upstream in self.upstreams:
            upstream.refresh(force=True)

    def unresponsive_models(self) -> list[str]:
        """Return the names of required models that are not loaded or do not respond.

        The required models are the models in `settings.models`, or all loaded models if that setting is empty. Raises
        Unavailable if no model is loaded.
        """
        self.models()
        models = self._union()
        required = self._settings.models or tuple(models)
        return [name for name in required if name not in models or not self._responds(models[name])]

    def _responds(self, model: Model) -> bool:
        having = [upstream for upstream in self.upstreams if model.name in upstream.models]
        return any(upstream.responds(upstream.models[model.name]) for upstream in having)

    def _union(self) -> dict[str, Model]:
        """Return the models of all Tritons by name. An instance that computes something else than others is left out.

        If the instances of a model differ, those count that are more, or come first.
        """
        read = [upstream.models for upstream in self.upstreams]
        if len(read) != len(self._read) or any(new is not old for new, old in zip(read, self._read, strict=True)):
            found: dict[str, list[Model]] = {}
            for models in read:
                for name, model in models.items():
                    found.setdefault(name, []).append(model)
            self._found = {name: self._agreed(name, models) for name, models in found.items()}
            self._read = read
        return self._found

    def compare(self) -> None:
        """Reject the instances of a model that compute something else than the others."""
        self._union()

    def _agreed(self, name: str, models: list[Model]) -> Model:
        identities = [model.identity for model in models]
        identity = models[0].identity
        if len(set(identities)) > 1:
            identity = max(identities, key=identities.count)
        for instance in self.instances(name):
            self._reject(instance, instance.model.identity != identity)
        matching = [model for model in models if model.identity == identity]
        return next((model for model in matching if model.state == READY), matching[0])

    def _reject(self, instance: Instance, is_odd: bool) -> None:
        reason = "its weights, engine or precision differ from those of the other instances" if is_odd else ""
        if reason and not instance.rejection:
            log.error("%s gets no requests: %s", instance.id, reason)
        instance.rejection = reason

    def _raise_unknown(self, name: str, target: str | None) -> NoReturn:
        base = (target or "").rpartition(":")[0]  # of an adapter
        if {(target or "").casefold(), base.casefold()} & set(map(str.casefold, self._settings.models)):
            raise Unavailable(f"The model '{name}' is not currently loaded")
        raise ModelNotFound(name)

    def _in_order(self, names: Iterable[str]) -> list[str]:
        order = {name: position for position, name in enumerate(self._settings.models)}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _best_first(models: Sequence[Model], tasks: Sequence[str]) -> list[Model]:
    return sorted(models, key=lambda model: [not model.serves(task) for task in tasks])
