"""An instance: one model at one Triton. Knows whether it may get requests, and which requests it has."""

import logging
import time
from datetime import UTC, datetime
from typing import Protocol, cast

from frontend import metrics
from frontend.errors import APIError, Unavailable
from frontend.settings import Settings
from frontend.triton.breaker import Breaker
from frontend.triton.model import Model

log = logging.getLogger(__name__)

_MIN_SHARE = 0.1

SERVICE_OF_TASK = {
    "chat": "chat",
    "embedding": "embedding",
    "rerank": "rerank",
    "speech": "tts",
    "transcription": "stt",
    "background_removal": "background",
    "ocr": "ocr",
    "image_generation": "imgGen",
}
"""Task of a model → its service. A model that generates images also has the service imgEdit."""


class Abortable(Protocol):
    """A request in progress, which can be made to fail."""

    def fail(self, error: APIError) -> None: ...


class Instance:
    """The state of one instance in this process."""

    def __init__(self, model: Model, base_url: str, settings: Settings, weight: float = 1.0, enabled: bool = True):
        self.id = f"{model.name}@{base_url}"
        self.model, self.base_url = model, base_url
        self.configured_weight, self.enabled = weight, enabled
        self.service = SERVICE_OF_TASK.get(model.task, "chat")
        self.breaker = Breaker(
            settings.failure_threshold,
            settings.success_threshold,
            settings.breaker_seconds,
            trial_seconds=settings.request_timeout,
            on_change=self._breaker_changed,
        )
        self.rejection = ""
        """Why the instance gets no requests although it works, such as weights that differ from other instances'."""
        self.is_draining = False
        """Whether the instance gets no more requests, because it is removed."""
        self.is_reloading = False
        """Whether the instance gets no requests for now, because its model is loaded again."""
        self.is_lost = False
        """Whether the model could not be loaded again. It is still listed, so that this can be tried again."""
        self.is_up = True
        self.is_doubtful = False
        """Whether the instance is down only because it did not respond to probes in time."""
        self.is_suspect = False
        """Whether a request was lost and no probe has succeeded since."""
        self.died_at: float | None = None
        """When the instance's process has died, if it has no new one yet."""
        self.epoch = 0
        """How often the instance has recovered. A request may be sent again to an instance that has recovered."""
        self.checked_at = float("-inf")
        self.probe_seconds: float | None = None
        """How long the instance took to respond to the last probe."""
        self.responded_at = float("-inf")
        self._slow_start = settings.slow_start_seconds
        self._up_since = float("-inf")
        self._requests: set[Abortable] = set()
        metrics.set_instance_weight(self.service, self.id, weight)
        metrics.set_instance_up(self.service, self.id, True)
        metrics.set_breaker_state(self.id, "closed")

    @property
    def breaker_state(self) -> str:
        """The state of the circuit breaker: `closed`, `open` or `half_open`."""
        return self.breaker.state

    @property
    def active(self) -> int:
        """The number of requests in progress."""
        return len(self._requests)

    @property
    def weight(self) -> float:
        """The share of the requests. After a start or a recovery, it grows to the configured weight."""
        age = time.monotonic() - self._up_since
        if age >= self._slow_start:
            return self.configured_weight
        return self.configured_weight * max(_MIN_SHARE, age / self._slow_start)

    @property
    def is_usable(self) -> bool:
        """Whether the instance gets requests as soon as it is up and its breaker is closed."""
        return self.enabled and not self.is_draining and not self.rejection

    def last_check(self) -> str | None:
        """Return the time of the last probe in ISO 8601, if any."""
        if self.checked_at == float("-inf"):
            return None
        seconds = time.time() - (time.monotonic() - self.checked_at)
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

    def begin_slow_start(self) -> None:
        """Let the weight grow from now on, because the instance is new."""
        self._up_since = time.monotonic()

    def configure(self, weight: float, enabled: bool) -> None:
        """Change the instance's settings."""
        self.configured_weight, self.enabled = weight, enabled
        metrics.set_instance_weight(self.service, self.id, weight)

    def add(self, request: Abortable) -> None:
        """Count a request that is sent to the instance."""
        self._requests.add(request)
        metrics.set_instance_active(self.service, self.id, len(self._requests))

    def remove(self, request: Abortable) -> None:
        """Stop counting a request."""
        self._requests.discard(request)
        metrics.set_instance_active(self.service, self.id, len(self._requests))

    def suspect(self) -> None:
        """Record that a request was lost. The next check decides whether the instance is down."""
        self.is_suspect = True

    def went_down(self, reason: str, is_doubtful: bool = False) -> None:
        """Record that the instance does not respond, so that it gets no requests until a probe succeeds."""
        if self.is_up:
            log.warning("%s is down: %s", self.id, reason)
            metrics.set_instance_up(self.service, self.id, False)
        self.is_up, self.is_suspect, self.is_doubtful = False, True, is_doubtful

    def died(self, reason: str, is_doubtful: bool = False) -> None:
        """Record that the instance's process has died, and fail its requests, which would wait for it in vain."""
        self.went_down(reason, is_doubtful)
        self.died_at = time.monotonic()
        self.fail_requests("The model's process stopped")

    def fail_requests(self, reason: str) -> None:
        """Make all requests in progress fail. Requests without a response are sent to another instance."""
        for request in tuple(self._requests):
            request.fail(Unavailable(reason))

    def responded(self) -> None:
        """Record a successful probe."""
        was_down, was_suspect = not self.is_up, self.is_suspect
        self.is_up, self.is_suspect, self.is_doubtful, self.is_lost = True, False, False, False
        self.responded_at, self.died_at = time.monotonic(), None
        if was_suspect:
            self.epoch += 1
        if was_down:
            log.warning("%s is up again", self.id)
            metrics.set_instance_up(self.service, self.id, True)
            if not self.breaker.is_forced:
                self.breaker.reset()
            self._up_since = time.monotonic()

    def close(self) -> None:
        """Remove the instance's metrics, because it no longer exists."""
        metrics.remove_instance(self.service, self.id)

    def _breaker_changed(self, state: str) -> None:
        new = cast(metrics.BreakerState, state)
        log.warning("the circuit breaker of %s is %s", self.id, state)
        metrics.set_breaker_state(self.id, new)
        metrics.record_breaker_transition(self.id, new)
