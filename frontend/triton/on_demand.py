"""Loads models when they are first requested, and unloads models that are idle or stand in the way of others.

The workers of the frontend share a folder with a lock, so that only one model is loaded at a time, and with a file for
each model. Every request holds a shared lock of its model's file until its response ends, and a model is unloaded only
under an exclusive lock. The file says whether the model is loaded, and its modification time is the end of the last
request. The launcher writes the memory that each model needs. Models that Trident was started with stay loaded.
"""

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol

from frontend.errors import APIError, Unavailable
from frontend.settings import Settings
from frontend.triton.client import ModelState
from frontend.triton.registry import Registry

log = logging.getLogger(__name__)

_READY, _UNLOADING = "READY", "UNLOADING"
# The states of models that occupy memory.
_PRESENT = (_READY, "LOADING", _UNLOADING)

_LOADED, _UNLOADED = "loaded", "unloaded"

_LOAD_SECONDS, _UNLOAD_SECONDS = 300.0, 60.0
_POLL_SECONDS = 0.05
_CHECK_SECONDS = 1.0


class Triton(Protocol):
    """The part of the Triton client that loads and unloads models."""

    def index(self) -> list[ModelState]: ...
    def load(self, model: str, timeout: float) -> None: ...
    def unload(self, model: str, timeout: float) -> None: ...


class OnDemand:
    """Loads and unloads the models of the repository. All methods may be called from any thread."""

    def __init__(self, settings: Settings, triton: Triton, registry: Registry):
        self._settings, self._triton, self._registry = settings, triton, registry
        self._folder = settings.on_demand_folder
        self._folder.mkdir(parents=True, exist_ok=True)
        sizes = json.loads(settings.footprints_file.read_text(encoding="utf-8"))
        self._limit: int = sizes["limit"]
        self._sizes: Mapping[str, int] = sizes["models"]

    def start(self) -> None:
        """Start the thread that unloads idle models."""
        threading.Thread(target=self._watch, name="on-demand", daemon=True).start()

    def hold(self, name: str) -> Callable[[], None]:
        """Load a model unless it is loaded, and keep it loaded until the function that is returned is called.

        Raises Unavailable if it does not fit beside the models in use, cannot be loaded, or is not loaded in time.
        """
        if name in self._settings.models:
            return lambda: None
        deadline = time.monotonic() + self._settings.request_timeout
        file = self._file(name).open("a+", encoding="utf-8")
        try:
            _lock(file, fcntl.LOCK_SH, deadline)
            if self._registry.state(name) != _READY or self._content(name) != _LOADED:
                with self._loading(deadline):
                    self._load(name)
                self._registry.refresh()
        except BaseException:
            file.close()
            raise

        def release() -> None:
            os.utime(self._file(name))
            file.close()

        return release

    def unload_idle(self) -> None:
        """Unload the models that have had no request for the time that `keep_alive` sets."""
        if self._settings.keep_alive < 0:
            return
        for name in self._present():
            if self._is_removable(name) and self._unused_seconds(name) >= self._settings.keep_alive:
                self._unload(name)

    def _load(self, name: str) -> None:
        """Load a model, after making room for it. The caller holds the lock of all workers."""
        self._wait_until_unloaded(name)
        if self._state(name) != _READY:
            self._make_room(name)
            started = time.monotonic()
            try:
                self._triton.load(name, _LOAD_SECONDS)
            except APIError as error:
                log.warning("%s could not be loaded: %s", name, error)
                raise Unavailable(f"The model '{name}' could not be loaded; see the server's log") from error
            log.info("loaded %s in %.1f s", name, time.monotonic() - started)
        self._file(name).write_text(_LOADED, encoding="utf-8")

    def _make_room(self, name: str) -> None:
        """Unload the least recently used models until another one fits. Raises Unavailable if it does not."""
        needed = self._sizes.get(name, 0)
        if sum(self._sizes.get(other, 0) for other in self._settings.models) + needed > self._limit:
            raise Unavailable(
                f"The model '{name}' needs {needed / 1e9:.1f} GB, which do not fit beside the models that stay loaded"
            )
        present = self._present()
        for oldest in sorted(filter(self._is_removable, present), key=self._unused_seconds, reverse=True):
            if self._used(present) + needed <= self._limit:
                return
            if oldest != name and self._unload(oldest):
                present.remove(oldest)
        if self._used(present) + needed > self._limit:
            left = max(0, self._limit - self._used(present))
            raise Unavailable(
                f"The model '{name}' needs {needed / 1e9:.1f} GB, and the loaded models, which are in use, leave "
                f"{left / 1e9:.1f} GB; retry later"
            )

    def _unload(self, name: str) -> bool:
        """Unload a model unless a request uses it, and wait until its memory is free. Return whether it is unloaded."""
        with self._file(name).open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._state(name) != _READY:  # another worker was faster
                return False
            self._file(name).write_text(_UNLOADED, encoding="utf-8")
            try:
                self._triton.unload(name, _UNLOAD_SECONDS)
                self._wait_until_unloaded(name)
            except APIError as error:
                log.warning("%s could not be unloaded: %s", name, error)
                return False
            finally:
                self._registry.refresh()
        log.info("unloaded %s", name)
        return True

    def _wait_until_unloaded(self, name: str) -> None:
        """Wait while Triton unloads a model, which it does in the background. Raises Unavailable if it takes long."""
        deadline = time.monotonic() + _UNLOAD_SECONDS
        while self._state(name) == _UNLOADING:
            if time.monotonic() > deadline:
                raise Unavailable(f"The model '{name}' is still being unloaded; retry later")
            time.sleep(_POLL_SECONDS)

    def _state(self, name: str) -> str:
        return next((model.state for model in self._triton.index() if model.name == name), "")

    def _present(self) -> list[str]:
        return [model.name for model in self._triton.index() if model.state in _PRESENT]

    def _used(self, names: list[str]) -> int:
        return sum(self._sizes.get(name, 0) for name in names)

    def _is_removable(self, name: str) -> bool:
        return name in self._sizes and name not in self._settings.models

    def _unused_seconds(self, name: str) -> float:
        try:
            return time.time() - self._file(name).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _content(self, name: str) -> str:
        return self._file(name).read_text(encoding="utf-8")

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.used"

    @contextlib.contextmanager
    def _loading(self, deadline: float) -> Iterator[None]:
        """Hold the lock of all workers, so that one model is loaded at a time."""
        with (self._folder / "lock").open("w", encoding="utf-8") as lock:
            _lock(lock, fcntl.LOCK_EX, deadline)
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


def _lock(file: IO[str], kind: int, deadline: float) -> None:
    """Lock a file. Waiting does not block the worker's other requests. Raises Unavailable at the deadline."""
    while True:
        try:
            return fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable("Other models are being loaded; retry later") from None
            time.sleep(_POLL_SECONDS)
