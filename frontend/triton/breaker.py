"""The circuit breaker of one Triton instance: rejects requests to an instance that keeps failing."""

import random
import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]

_MAX_OPEN_SECONDS = 600.0
# The workers' breakers open at about the same time. Jitter prevents that they all send their trial requests at once.
_JITTER = 0.1
_NEVER = 1 << 60
_TRIAL_SECONDS = 60.0
_TRIAL_RETRY_SECONDS = 1.0


class Ticket:
    """The permission to send one request. Only the first report of its outcome counts.

    Report the outcome of a stream at its first response: after the breaker's `trial_seconds` without a report, a trial
    request counts as a failure.
    """

    __slots__ = ("_breaker", "_period")

    def __init__(self, breaker: "Breaker", period: int):
        self._breaker: Breaker | None = breaker
        self._period = period

    def succeeded(self) -> None:
        """Report that the instance responded."""
        self._report(True)

    def failed(self) -> None:
        """Report that the instance failed."""
        self._report(False)

    def abandoned(self) -> None:
        """Report that the outcome is unknown, because the client disconnected."""
        self._report(None)

    def _report(self, success: bool | None) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._finish(self._period, success)


class Breaker:
    """Opens after `failure_threshold` failures in a row. Closes after `success_threshold` successful trial requests.

    It stays open for `open_seconds`, plus up to 10% jitter. Then it is half-open, and admits one trial request at a
    time. If a trial fails, it opens again, each time for twice as long, up to 10 minutes (plus jitter).

    `jitter` returns a number from 0 to 1. `on_change` is called with the new state. No method waits, and `on_change` is
    called after the state has changed, so greenlets need no lock.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        success_threshold: int = 2,
        open_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,  # noqa: S311
        on_change: Callable[[str], None] | None = None,
        trial_seconds: float = _TRIAL_SECONDS,
    ):
        self._failure_threshold, self._success_threshold = failure_threshold, success_threshold
        self._open_seconds = self._next_open_seconds = open_seconds
        self._trial_seconds = trial_seconds
        self._clock, self._jitter, self._on_change = clock, jitter, on_change
        self._state: State = "closed"
        # Increases with each change of the state. A ticket from an earlier period no longer counts.
        self._period = 0
        self._successes = 0
        self._open_until = 0.0
        self._forced = False
        self._trial_until: float | None = None
        self.failures = 0
        """The number of failures in a row."""
        self.last_failure_at: float | None = None
        """The Unix time of the last failure, or None."""
        self.opened_at: float | None = None
        """The Unix time when the breaker last opened, or None."""

    def configure(self, failure_threshold: int | None, success_threshold: int, open_seconds: float) -> None:
        """Change the thresholds, and the time for which the breaker is open, from now on.

        Without a threshold of failures, they never open the breaker.
        """
        if failure_threshold is None and not self._forced:
            self.reset()
        if open_seconds != self._open_seconds:
            self._open_seconds = self._next_open_seconds = open_seconds
        self._failure_threshold = _NEVER if failure_threshold is None else failure_threshold
        self._success_threshold = success_threshold

    @property
    def is_forced(self) -> bool:
        """Whether the breaker is open until `reset`."""
        return self._forced

    @property
    def failure_threshold(self) -> int:
        """The failures in a row that open the breaker."""
        return self._failure_threshold

    @property
    def success_threshold(self) -> int:
        """The successful trial requests that close it."""
        return self._success_threshold

    @property
    def open_seconds(self) -> float:
        """The time until the first trial request."""
        return self._open_seconds

    @property
    def state(self) -> State:
        """The state now: an open breaker becomes half-open when its time is over, without a request."""
        self._advance()
        return self._state

    @property
    def retry_after(self) -> float:
        """The seconds until the breaker admits a request; 0 if it admits one now.

        This is an estimate of one second while a trial request is in progress, and `open_seconds` after `force_open`.
        """
        if self.admits():
            return 0.0
        if self._state == "half_open":
            return _TRIAL_RETRY_SECONDS
        return self._open_seconds if self._forced else max(self._open_until - self._clock(), 0.0)

    def admits(self) -> bool:
        """Return whether `admit` would return a ticket."""
        self._advance()
        return self._state == "closed" or (self._state == "half_open" and self._trial_until is None)

    def admit(self) -> Ticket | None:
        """Return a ticket for one request, or None if the request must not be sent."""
        if not self.admits():
            return None
        if self._state == "half_open":
            self._trial_until = self._clock() + self._trial_seconds
        return Ticket(self, self._period)

    def reset(self) -> None:
        """Close the breaker, also after `force_open`. Earlier requests no longer count."""
        self._forced = False
        self._next_open_seconds = self._open_seconds
        self.failures = 0
        self._enter("closed")

    def probe_succeeded(self) -> None:
        """Make an open breaker half-open before its time is over. No effect in other states or after `force_open`."""
        self._advance()
        if self._state == "open" and not self._forced:
            self._enter("half_open")

    def force_open(self) -> None:
        """Open the breaker until `reset` is called."""
        self._advance()
        self._forced = True
        self.opened_at = time.time()
        self._enter("open")

    def _advance(self) -> None:
        """Make the changes that were due by now."""
        now = self._clock()
        if self._trial_until is not None and now >= self._trial_until:
            self._fail(self._trial_until)
        if self._state == "open" and not self._forced and now >= self._open_until:
            self._enter("half_open")

    def _finish(self, period: int, success: bool | None) -> None:
        self._advance()
        if period != self._period:
            return
        self._trial_until = None
        if success is False:
            self._fail(self._clock())
        elif success and self._state == "closed":
            self.failures = 0
        elif success:
            self._successes += 1
            if self._successes >= self._success_threshold:
                self.reset()

    def _fail(self, at: float) -> None:
        """Count a failure at the time `at` of the clock."""
        self.failures += 1
        self.last_failure_at = time.time() - (self._clock() - at)
        if self._state == "half_open" or self.failures >= self._failure_threshold:
            self.opened_at = self.last_failure_at
            self._open_until = at + self._next_open_seconds * (1 + _JITTER * self._jitter())
            self._next_open_seconds = max(self._open_seconds, min(2 * self._next_open_seconds, _MAX_OPEN_SECONDS))
            self._enter("open")

    def _enter(self, state: State) -> None:
        changed = state != self._state
        self._state = state
        self._period += 1
        self._successes = 0
        self._trial_until = None
        if changed and self._on_change is not None:
            self._on_change(state)
