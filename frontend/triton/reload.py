"""Loads a model again at one Triton after another, while requests go on."""

import logging
import threading
import time

from frontend.errors import APIError, Conflict, NotFound, ServiceUnavailable, Unavailable
from frontend.settings import Settings
from frontend.triton.instance import Instance
from frontend.triton.registry import Registry
from frontend.triton.revival import load_again
from frontend.triton.served_model import refresh_model

log = logging.getLogger(__name__)

_UNLOAD_SECONDS, _LOAD_SECONDS = 60.0, 600.0
# Triton is still ending a request whose last response has arrived, or that was cancelled.
_END_SECONDS = 1.0
_CHECK_SECONDS = 0.1


class Reloader:
    """Loads models again, for example because their files have changed. Reloads one instance at a time."""

    def __init__(self, settings: Settings, registry: Registry):
        self._settings, self._registry = settings, registry
        self._busy = threading.Lock()

    def reload(self, name: str) -> list[str]:
        """Load a model again at every Triton that has it, and return the IDs of the instances.

        Stops at the first instance that fails: the others keep the model that they have. Raises APIError.
        """
        if self._settings.workers > 1:
            # Each worker knows only its own requests.
            raise Conflict("A model can be loaded again only by a server with one worker")
        if not self._busy.acquire(blocking=False):
            raise ServiceUnavailable("Another model is being loaded; retry later")
        try:
            instances = [each for each in self._registry.instances(name) if not each.is_draining]
            if not instances:
                raise Unavailable(f"The model '{name}' is not loaded")
            for instance in instances:
                self._reload(instance)
            return [instance.id for instance in instances]
        finally:
            self._busy.release()

    def load(self, name: str) -> list[str]:
        """Load a model at every Triton whose repository has it. Return its instances' IDs. Raises APIError."""
        if not self._busy.acquire(blocking=False):
            raise ServiceUnavailable("Another model is being loaded; retry later")
        try:
            found, problem = False, None
            for upstream in self._registry.upstreams:
                try:
                    if not upstream.has_in_repository(name):
                        continue
                    found = True
                    upstream.client.load(name, _LOAD_SECONDS)
                    upstream.refresh(force=True)
                except APIError as error:  # the others load it nevertheless
                    log.warning("%s could not be loaded at %s: %s", name, upstream.address.base_url, error)
                    problem = error
            if problem:
                raise problem
            if not found:
                raise NotFound(f"No repository has a model '{name}'", param="model")
            return [instance.id for instance in self._registry.instances(name)]
        finally:
            self._busy.release()

    def unload(self, name: str) -> list[str]:
        """Unload a model at every Triton, after the requests in progress, and return the IDs of the instances.

        Raises APIError.
        """
        if self._settings.workers > 1:
            raise Conflict("A model can be unloaded only by a server with one worker")  # see reload
        if not self._busy.acquire(blocking=False):
            raise ServiceUnavailable("Another model is being loaded; retry later")
        try:
            instances = self._registry.instances(name)
            for instance in instances:
                self._unload(instance)
            return [instance.id for instance in instances]
        finally:
            self._busy.release()

    def _unload(self, instance: Instance) -> None:
        upstream = self._registry.upstream_of(instance)
        if upstream is None:
            return
        was_draining, instance.is_draining = instance.is_draining, True
        try:
            self._drain(instance, "The model is unloaded")
            upstream.client.unload(instance.model.name, _UNLOAD_SECONDS)
        except BaseException:
            instance.is_draining = was_draining
            raise
        upstream.forget_model(instance.model.name)
        upstream.refresh(force=True)

    def _drain(self, instance: Instance, reason: str) -> None:
        """Wait for an instance's requests in progress, and then fail them."""
        deadline = time.monotonic() + self._settings.instance_drain_seconds
        while instance.active and time.monotonic() < deadline:
            time.sleep(_CHECK_SECONDS)
        instance.fail_requests(reason)
        time.sleep(_END_SECONDS)

    def _reload(self, instance: Instance) -> None:
        """Let the requests in progress finish, then unload and load the model. New requests go elsewhere, or wait.

        Triton 2.51 corrupts its memory if a model is unloaded, or replaced by a newer one, while it sends a stream.
        """
        upstream, name = self._registry.upstream_of(instance), instance.model.name
        if upstream is None:
            return
        log.warning("loading %s again", instance.id)
        instance.is_reloading = True
        try:
            refresh_model(self._settings, name)
            self._drain(instance, "The model is loaded again")
            load_again(upstream.client, name, _UNLOAD_SECONDS, _LOAD_SECONDS)
            upstream.forget(name)
            upstream.refresh(force=True)
            if name not in upstream.models or not upstream.responds(upstream.models[name]):
                raise Unavailable(f"{instance.id} does not respond after it was loaded again")
            instance.responded()
            self._registry.compare()
            log.warning("%s is loaded again", instance.id)
        except APIError as error:
            log.warning("%s could not be loaded again: %s", instance.id, error)
            instance.is_lost = True
            raise
        finally:
            instance.is_reloading = False
