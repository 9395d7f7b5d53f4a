"""One Triton: its client, the models that it has, and the checks of their health."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from frontend.errors import APIError, DeadlineExceeded, InvalidRequest
from frontend.instance_config import InstanceConfig
from frontend.settings import Settings
from frontend.triton.client import ModelState, read_config
from frontend.triton.incarnations import Incarnations, report_hung
from frontend.triton.instance import Instance
from frontend.triton.model import READY, UNAVAILABLE, UNLOADED, UNLOADING, Model, read_model
from frontend.triton.revival import Reviver
from frontend.triton.status import StubDied

log = logging.getLogger(__name__)

_PROBE_SECONDS = 3.0
_BUSY_SECONDS = 10.0
_INDEX_SECONDS = 1.0
_WAKE_SECONDS = 0.25
_MAX_TIMEOUTS = 2
_MAX_DEATHS = 3


class Triton(Protocol):
    """The part of the Triton client that checks use."""

    def index(self) -> list[ModelState]: ...
    def config(self, model: str) -> Any: ...
    def probe(self, model: str, inputs: Sequence[str], *, batched: bool, timeout: float) -> None: ...


class Upstream:
    """The models and instances of one Triton. `configs` are the configured instances at its address.

    `set_up` is called with each new instance.
    """

    def __init__(
        self,
        configs: Sequence[InstanceConfig],
        client: Any,
        settings: Settings,
        set_up: Callable[[Instance], None] = lambda _: None,
    ):
        self.address, self.client = configs[0].address, client
        self.begins_slowly = False
        """Whether new instances get their full share of the requests only after a while: others serve already."""
        self.instances: dict[str, Instance] = {}
        self.models: dict[str, Model] = {}
        """The models by name, as they were last read."""
        self._configs = {config.name: config for config in configs}
        self._settings, self._triton = settings, client
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._read_at = float("-inf")
        self._ready_at: dict[str, float] = {}
        # Models that are not loaded, and the modification times of their configurations.
        self._unloaded: dict[str, tuple[int, Model | None]] = {}
        self._timeouts: dict[str, int] = {}
        self._deaths: dict[str, int] = {}
        self._index_timeouts, self._responds = 0, True
        self._probing: set[str] = set()
        self._on_change: Callable[[], None] = lambda: None
        self.is_watched, self.is_closed = False, False
        # Instances that were removed, and when their last requests are cancelled; `_closes_at`: all of them were.
        self._leaving: dict[str, float] = {}
        self._closes_at: float | None = None
        self._unloading: set[str] = set()
        self._set_up = set_up
        is_own = settings.starts_triton and self.address == settings.all_instances[0].address
        self._incarnations = Incarnations(settings.incarnations_file) if is_own else None
        self._reviver = None if is_own else Reviver(settings, self.address, client)

    def watch(self, on_change: Callable[[], None]) -> None:
        """Check the models in the background from now on. `on_change` is called when an instance goes down or up."""
        self._on_change, self.is_watched = on_change, True
        threading.Thread(target=self._watch, name="upstream", daemon=True).start()

    def configure(self, configs: Sequence[InstanceConfig]) -> None:
        """Apply changed settings of the instances. Instances that are no longer configured finish their requests."""
        self._configs = {config.name: config for config in configs}
        self.begins_slowly = True
        if self._closes_at is not None:  # it was removed, and is back before it was closed
            self._closes_at = None
            for instance in self.instances.values():
                instance.is_draining = False
        for name, instance in list(self.instances.items()):
            config = self._configs.get(name) or self._configs.get("")
            if config:
                instance.configure(config.weight, config.enabled)
                if self._leaving.pop(name, None):
                    instance.is_draining = False
            else:
                self._drain(instance)
        self.refresh(force=True)
        self._on_change()

    def retire(self) -> None:
        """Send no more requests to the instances, and close when the requests in progress have ended."""
        self._closes_at = time.monotonic() + self._settings.instance_drain_seconds
        for instance in self.instances.values():
            instance.is_draining = True
        self._on_change()
        if self.is_watched:
            self._wake.set()
        else:
            self.close()

    def close(self) -> None:
        """End the checks and all requests, and close the connections."""
        self.is_closed = True
        if self._reviver:
            self._reviver.is_closed = True
        self._wake.set()
        for instance in self.instances.values():
            instance.fail_requests("The instance was removed")
            instance.close()
        self.client.close()

    def refresh(self, force: bool = False) -> None:
        """Read Triton's index again, unless it was read within the last second, or is being read, or `force`."""
        # A new process waits for its first reading, so that it does not report that there are no models.
        is_followed = self.is_watched and self._read_at > float("-inf")
        if not force and (is_followed or time.monotonic() - self._read_at < _INDEX_SECONDS):
            return
        if self.models and self._lock.locked() and not force:
            return
        with self._lock:
            if force or time.monotonic() - self._read_at >= _INDEX_SECONDS:
                self._read()

    def forget(self, name: str) -> None:
        """Read the model's configuration again at the next refresh."""
        if name in self.models:
            self.models = self.models | {name: replace(self.models[name], state=UNAVAILABLE)}

    def has_in_repository(self, name: str) -> bool:
        """Return whether Triton's repository has a model, loaded or not. Raises APIError."""
        return any(each.name == name for each in self._triton.index())

    def forget_model(self, name: str) -> None:
        """Stop listing a model, because it was unloaded."""
        self.models = {known: model for known, model in self.models.items() if known != name}
        self._ready_at.pop(name, None)
        self._update_instances()

    def check_soon(self) -> None:
        """Check the suspects at once."""
        self._wake.set()

    def check(self) -> None:
        """Read the index if it is due, and probe the instances that are due, suspect or down."""
        if self._closes_at is not None:
            if time.monotonic() >= self._closes_at or not any(each.active for each in self.instances.values()):
                self.close()
            return
        if self._incarnations:
            for name in self._incarnations.changed():
                if name in self.instances:
                    self.instances[name].died("its process was restarted")
                    self._on_change()
        if time.monotonic() - self._read_at >= _INDEX_SECONDS or any(not i.is_up for i in self.instances.values()):
            with self._lock:
                self._read()
        for name, instance in list(self.instances.items()):
            is_due = time.monotonic() - instance.checked_at >= self._settings.health_seconds
            is_ready = name in self.models and self.models[name].state == READY
            if instance.is_draining or instance.is_reloading:
                continue
            if is_ready and (instance.is_suspect or is_due) and name not in self._probing:
                self._probing.add(name)
                threading.Thread(target=self._probe_instance, args=(instance,), name="probe", daemon=True).start()

    def responds(self, model: Model) -> bool:
        """Return whether a model responds to a probe, or has just responded to a request."""
        if model.state == UNLOADED:
            return False
        if model.uses_vllm:
            return model.state == READY  # the vLLM backend has no probe, but Triton unloads a model whose engine fails
        try:
            self._triton.probe(model.name, model.inputs, batched=model.batched, timeout=_PROBE_SECONDS)
        except DeadlineExceeded:
            # A probe of a batched model queues behind requests, so a busy model may not respond to the probe in time.
            # In that case, a recent response to a request shows that the model works.
            return model.name in self.instances and self._is_busy(self.instances[model.name])
        except APIError as error:
            log.warning("the probe of %s failed: %s", model.name, error)
            return isinstance(error, InvalidRequest)
        return True

    def _is_busy(self, instance: Instance) -> bool:
        """Return whether an instance may be too busy for a probe: a batched model computes one batch after another."""
        return (instance.model.batched and instance.active > 0) or (
            time.monotonic() - instance.responded_at < _BUSY_SECONDS
        )

    def _watch(self) -> None:
        while not self.is_closed:
            try:
                self.check()
            except Exception:
                log.exception("%s could not be checked", self.address.base_url)
            self._wake.wait(_WAKE_SECONDS)
            self._wake.clear()

    def _probe_instance(self, instance: Instance) -> None:
        name, was_up = instance.model.name, instance.is_up
        instance.checked_at = time.monotonic()
        try:
            self._probe(instance)
        finally:
            self._probing.discard(name)
        if instance.is_up != was_up or instance.is_up:
            self._on_change()

    def _probe(self, instance: Instance) -> None:
        model = self.models[instance.model.name]
        if model.uses_vllm:
            return instance.responded()
        try:
            self._triton.probe(model.name, model.inputs, batched=model.batched, timeout=_PROBE_SECONDS)
        except DeadlineExceeded:
            self._timed_out(instance)
        except InvalidRequest:
            instance.responded()  # a backend of another version rejected the probe, so it runs
        except StubDied as error:
            instance.died(str(error))
            # A process that hangs is also reported as dead. The launcher notices by itself if a process has died.
            self._deaths[model.name] = self._deaths.get(model.name, 0) + 1
            if self._reviver or self._deaths[model.name] >= _MAX_DEATHS:
                self._replace(model.name)
        except APIError as error:
            instance.went_down(str(error))
        else:
            instance.probe_seconds = time.monotonic() - instance.checked_at
            self._timeouts.pop(model.name, None)
            self._deaths.pop(model.name, None)
            instance.responded()

    def _timed_out(self, instance: Instance) -> None:
        """Count a probe without a response. After the second in a row, the instance is taken for dead."""
        name = instance.model.name
        if self._is_busy(instance):
            return
        self._timeouts[name] = self._timeouts.get(name, 0) + 1
        if self._timeouts[name] < _MAX_TIMEOUTS:
            return
        instance.died("it does not respond", is_doubtful=True)
        if instance.model.batched and self._settings.workers > 1:
            return  # a batch of another frontend process may take that long
        self._replace(name)

    def _replace(self, name: str) -> None:
        """Give the model another process, or ask the launcher to do so, if Triton is the launcher's."""
        self._timeouts.pop(name, None)
        self._deaths.pop(name, None)
        if self._reviver:
            self._reviver.revive(name)
        elif self._incarnations:
            report_hung(self._settings.hung_folder, name, self._incarnations.number(name))

    def _read(self) -> None:
        """Read the index, and the configurations of new models. The caller holds the lock."""
        known = {name: model for name, model in self.models.items() if model.state == READY}
        now = time.monotonic()
        try:
            index = self._triton.index()
            ready = [model.name for model in index if model.state == READY and self._is_wanted(model.name)]
            self._unloading = {model.name for model in index if model.state == UNLOADING}
            models = {name: known.get(name) or self._read_model(name) for name in ready}
            self._ready_at |= dict.fromkeys(ready, now)
            if self._settings.models_on_demand:
                others = sorted(model.name for model in index if model.state != READY)
                models |= {name: self._read_unloaded(name) for name in others if not self._is_reviving(name)}
        except DeadlineExceeded:
            self._index_timeouts += 1
            found = self.models
            if self._index_timeouts >= _MAX_TIMEOUTS:
                found = {name: replace(model, state=UNAVAILABLE) for name, model in self.models.items()}
                for instance in self.instances.values():
                    if instance.is_up:
                        instance.died("Triton does not respond", is_doubtful=True)
        except APIError as error:
            if self._responds:
                log.warning("%s is not responding: %s", self.address.base_url, error)
            self._responds = False
            found = {name: replace(model, state=UNAVAILABLE) for name, model in self.models.items()}
        else:
            self._index_timeouts, self._responds = 0, True
            found = {name: model for name, model in models.items() if model}
            found |= {name: replace(m, state=UNAVAILABLE) for name, m in self.models.items() if self._returns(m, found)}
        self.models = found
        self._update_instances()
        self._read_at = time.monotonic()

    def _read_model(self, name: str) -> Model | None:
        """Return a loaded model, or None if it has no task or no valid parameters. Raises APIError."""
        try:
            return read_model(name, self._triton.config(name))
        except ValueError as error:
            log.warning("%s at %s has invalid parameters: %s", name, self.address.base_url, error)
            return None

    def _is_wanted(self, name: str) -> bool:
        return "" in self._configs or name in self._configs

    def _returns(self, model: Model, found: dict[str, Model]) -> bool:
        """Return whether a model that is not loaded will probably be loaded again soon, because it is being revived."""
        if model.name in found or model.state == UNLOADED or not self._is_wanted(model.name):
            return False
        instance = self.instances.get(model.name)
        if model.name in self._unloading or (instance and (instance.is_reloading or instance.is_lost)):
            return True
        if self._is_reviving(model.name) or (self._reviver and model.name in self._reviver.pending):
            return True
        since = time.monotonic() - self._ready_at.get(model.name, float("-inf"))
        return model.name in self._settings.models or since < self._settings.recovery_seconds

    def _is_reviving(self, name: str) -> bool:
        """Return whether the model's process has died a moment ago, so that the model is being loaded again."""
        died_at = self.instances[name].died_at if name in self.instances else None
        return died_at is not None and time.monotonic() - died_at < self._settings.recovery_seconds

    def _update_instances(self) -> None:
        for name, model in self.models.items():
            if model.state == UNLOADED:
                if gone := self.instances.pop(name, None):
                    gone.close()
                continue
            if name not in self.instances:
                config = self._configs.get(name) or self._configs[""]
                self.instances[name] = Instance(
                    model, self.address.base_url, self._settings, config.weight, config.enabled
                )
                self._set_up(self.instances[name])
                if self.begins_slowly:
                    self.instances[name].begin_slow_start()
            instance = self.instances[name]
            instance.model = model
            if model.state != READY and instance.is_up:
                instance.went_down("it is not loaded, or Triton does not respond")
                self._on_change()
        for name in self.instances.keys() - self.models.keys():
            if self.instances[name].active and time.monotonic() < self._leaving.get(name, float("-inf")):
                continue
            gone = self.instances.pop(name)
            gone.died("it was removed" if self._leaving.pop(name, None) else "it was unloaded")
            gone.close()

    def _drain(self, instance: Instance) -> None:
        instance.is_draining = True
        self._leaving.setdefault(instance.model.name, time.monotonic() + self._settings.instance_drain_seconds)

    def _read_unloaded(self, name: str) -> Model | None:
        """Return a model that is not loaded, or None if it has no task or no valid configuration."""
        path = self._settings.served_repository / name / "config.pbtxt"
        try:
            changed_at = path.stat().st_mtime_ns
            known_at, model = self._unloaded.get(name, (0, None))
            if known_at != changed_at:
                model = read_model(name, read_config(path))
                self._unloaded[name] = changed_at, model
        except (OSError, ValueError) as error:
            log.warning("%s: %s", name, error)
            return None
        return model and replace(model, state=UNLOADED)
