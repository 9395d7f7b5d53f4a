"""Loads a model again whose process has died, at a Triton that Trident did not start.

The launcher does that at the Triton that it has started.
"""

import fcntl
import logging
import re
import threading
import time
from typing import Protocol

from frontend.errors import APIError
from frontend.instance_config import TritonAddress
from frontend.settings import Settings

log = logging.getLogger(__name__)

_UNLOAD_SECONDS, _LOAD_SECONDS = 2.0, 300.0
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 60.0


class Triton(Protocol):
    """The part of the Triton client that loads and unloads models."""

    def load(self, model: str, timeout: float) -> None: ...
    def unload(self, model: str, timeout: float) -> None: ...


def load_again(triton: Triton, model: str, unload_seconds: float, load_seconds: float) -> None:
    """Unload and load a model: Triton ignores a request to load a model that it takes for loaded.

    The model is loaded even if Triton does not say that it is unloaded. Raises APIError.
    """
    try:
        triton.unload(model, unload_seconds)
    finally:
        triton.load(model, load_seconds)


class Reviver:
    """Unloads and loads models of one Triton. A lock lets only one frontend process of this machine do that at once."""

    def __init__(self, settings: Settings, address: TritonAddress, triton: Triton):
        name = re.sub(r"\W", "_", address.base_url)
        self._path = settings.cache / "run" / "revivals" / name
        self._triton = triton
        self._busy = threading.Lock()
        self.pending: set[str] = set()
        """The models that are being loaded again."""
        self.is_closed = False

    def revive(self, model: str) -> None:
        """Load the model again, unless another thread or process is at it. Returns when the model is loaded."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("w", encoding="utf-8") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                self._reload(model)
        finally:
            self._busy.release()

    def _reload(self, model: str) -> None:
        """Load the model again, and try again until it is loaded, because nobody else would load it."""
        log.warning("reviving %s", model)
        self.pending.add(model)
        pause = _FIRST_PAUSE
        while not self.is_closed:
            try:
                load_again(self._triton, model, _UNLOAD_SECONDS, _LOAD_SECONDS)
                break
            except APIError as error:
                log.warning("%s could not be revived: %s", model, error)
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
        self.pending.discard(model)
