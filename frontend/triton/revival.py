"""Loads a model again whose process has died, at a Triton that Trident did not start.

The launcher does that at the Triton that it has started.
"""

import contextlib
import fcntl
import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from frontend.errors import APIError
from frontend.instance_config import TritonAddress
from frontend.settings import Settings

log = logging.getLogger(__name__)

_UNLOAD_SECONDS, _LOAD_SECONDS = 2.0, 300.0
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 60.0
_LOCK_SECONDS = round(_UNLOAD_SECONDS + _LOAD_SECONDS) + 30


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
    """Unloads and loads models of one Triton. Locks let only one frontend process do that at once."""

    def __init__(self, settings: Settings, address: TritonAddress, triton: Triton):
        self._name = re.sub(r"\W", "_", address.base_url)
        self._path = settings.cache / "run" / "revivals" / self._name
        self._redis_url = settings.redis_url
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
                with self._lock_of_machines() as is_held:
                    if is_held:
                        self._reload(model)
        finally:
            self._busy.release()

    @contextlib.contextmanager
    def _lock_of_machines(self) -> Iterator[bool]:
        """Hold a lock in Redis, if there is one, which frontends on several machines share. Yield whether it is held.

        Without Redis, or while it does not respond, there is only the lock of this machine.
        """
        if not self._redis_url:
            yield True
            return
        import redis  # imports OpenTelemetry, if that is installed

        store = redis.Redis.from_url(self._redis_url, socket_timeout=1, socket_connect_timeout=1)
        key = f"{{trident}}:revival:{self._name}"
        try:
            is_held = bool(store.set(key, 1, nx=True, ex=_LOCK_SECONDS))
        except redis.RedisError as error:
            log.warning("other frontends may revive models at the same time, as Redis does not respond: %s", error)
            yield True
            return
        try:
            yield is_held
        finally:
            if is_held:
                with contextlib.suppress(redis.RedisError):
                    store.delete(key)

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
