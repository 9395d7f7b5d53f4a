"""Loads models when they are first requested, and unloads models that are idle or stand in the way of others.

The workers of the frontend share a folder: a lock, so that only one model is loaded at a time, and a file for each
model, whose modification time is that of the last request. The launcher writes the memory that each model needs.
Models that Trident was started with are never unloaded.
"""

import contextlib
import fcntl
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from frontend.errors import APIError, Unavailable
from frontend.settings import Settings
from frontend.triton.client import ModelState
from frontend.triton.registry import Registry

log = logging.getLogger(__name__)

_READY = "READY"
_LOAD_SECONDS = 300.0
_LOCK_SECONDS = 0.05
_CHECK_SECONDS = 1.0

# A model that was requested so recently is not unloaded for another one, because its request may just begin.
_GRACE_SECONDS = 2.0


class Triton(Protocol):
    """The part of the Triton client that loads and unloads models."""

    def index(self) -> list[ModelState]: ...
    def load(self, model: str, timeout: float) -> None: ...
    def unload(self, model: str, timeout: float) -> None: ...


class OnDemand:
    """Loads and unloads the models of the repository. All methods may be called from any thread."""

    def __init__(self, settings: Settings, triton: Triton, registry: Registry):
        self._settings, self._triton, self._registry = settings, triton, registry
        self._folder = settings.run_folder / "on_demand"
        self._folder.mkdir(parents=True, exist_ok=True)
        sizes = json.loads(settings.footprints_file.read_text(encoding="utf-8"))
        self._limit: int = sizes["limit"]
        self._sizes: Mapping[str, int] = sizes["models"]

    def start(self) -> None:
        """Start the thread that unloads idle models."""
        threading.Thread(target=self._watch, name="on-demand", daemon=True).start()

    def ensure(self, name: str) -> None:
        """Load a model unless it is loaded, and record that it is in use.

        Raises Unavailable if it does not fit beside models that are in use, or cannot be loaded.
        """
        if name in self._settings.models:
            return
        self._touch(name)
        if self._registry.state(name) == _READY:
            return
        with self._locked():
            loaded = self._loaded()
            if name not in loaded:
                self._make_room(name, loaded)
                self._load(name)
        self._touch(name)
        self._registry.refresh()

    def unload_idle(self) -> None:
        """Unload the models that have had no request for the time that `keep_alive` sets."""
        for name in self._idle(self._loaded()):
            with self._locked():
                if self._idle([name]):
                    self._unload(name)

    def _idle(self, names: list[str]) -> list[str]:
        if self._settings.keep_alive < 0:
            return []
        seconds = max(self._settings.keep_alive, _GRACE_SECONDS)
        return [name for name in names if self._is_removable(name) and self._unused_seconds(name) >= seconds]

    def _make_room(self, name: str, loaded: list[str]) -> None:
        """Unload the least recently used models until another one fits. Raises Unavailable if it does not."""
        needed = self._sizes.get(name, 0)
        removable = sorted(filter(self._is_removable, loaded), key=self._unused_seconds)
        while self._used(loaded) + needed > self._limit:
            if not removable or self._unused_seconds(removable[-1]) < _GRACE_SECONDS:
                raise Unavailable(
                    f"The model '{name}' needs {needed / 1e9:.1f} GB, and the loaded models, which are in use, leave "
                    f"{max(0, self._limit - self._used(loaded)) / 1e9:.1f} GB; retry later"
                )
            oldest = removable.pop()
            self._unload(oldest)
            loaded = [other for other in loaded if other != oldest]

    def _load(self, name: str) -> None:
        started = time.monotonic()
        try:
            self._triton.load(name, _LOAD_SECONDS)
        except APIError as error:
            log.warning("%s could not be loaded: %s", name, error)
            raise Unavailable(f"The model '{name}' could not be loaded; see the server's log") from error
        log.info("loaded %s in %.1f s", name, time.monotonic() - started)

    def _unload(self, name: str) -> None:
        """Unload a model. Triton finishes its requests first."""
        try:
            self._triton.unload(name, _LOAD_SECONDS)
        except APIError as error:
            log.warning("%s could not be unloaded: %s", name, error)
        else:
            log.info("unloaded %s", name)
        self._registry.refresh()

    def _loaded(self) -> list[str]:
        return [model.name for model in self._triton.index() if model.state == _READY]

    def _used(self, loaded: list[str]) -> int:
        return sum(self._sizes.get(name, 0) for name in loaded)

    def _is_removable(self, name: str) -> bool:
        return name in self._sizes and name not in self._settings.models

    def _unused_seconds(self, name: str) -> float:
        try:
            return time.time() - self._file(name).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _touch(self, name: str) -> None:
        self._file(name).touch()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.used"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all workers. Waiting does not block the worker's other requests."""
        with (self._folder / "lock").open("w", encoding="utf-8") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_LOCK_SECONDS)
            yield

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_SECONDS)
            try:
                self.unload_idle()
            except APIError as error:
                log.warning("idle models were not unloaded: %s", error)
            except Exception:
                log.exception("idle models were not unloaded")
