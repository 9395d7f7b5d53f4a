"""Sends answers through Triton from one thread, and drops the answers of cancelled requests."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from backends.generation.output.generated_text import GeneratedText

log = logging.getLogger(__name__)

# Each response costs CPU time that the engine needs. Therefore, two responses of one answer are at least
# _SECONDS_BETWEEN apart, and all answers together have at most _SENDS_PER_SECOND responses per second. The first and
# the last response of an answer are exempt from both limits. Tokens that wait for the next response are sent together.
_SECONDS_BETWEEN = 0.02
_SENDS_PER_SECOND = 150
_CANCEL_CHECK_SECONDS = 0.2


class _Times:
    """The time at which an answer was last sent, and the time at which it was last checked for cancellation."""

    def __init__(self) -> None:
        self.sent = float("-inf")
        self.checked = time.monotonic()


class Sender:
    """Decides when the output of each answer is sent. The sender's thread calls the functions passed to `__init__`:

    `send(answer)` sends an answer's new output and returns whether this was the answer's last response.
    `abandon(answer)` is called once for an answer whose request is cancelled, or for which `send` raises an exception.
    `tick()` is called between these calls, at least once a second.
    """

    def __init__(
        self, send: Callable[[GeneratedText], bool], abandon: Callable[[GeneratedText], None], tick: Callable[[], None]
    ):
        self._send, self._abandon, self._tick = send, abandon, tick
        self._wake = threading.Condition()
        self._live: dict[GeneratedText, _Times] = {}
        self._ready: dict[GeneratedText, None] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send the output that is ready, and stop the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def watch(self, answer: GeneratedText) -> None:
        """Start to handle an answer: send its output after `notify`, and check whether its request is cancelled."""
        with self._wake:
            self._live[answer] = _Times()
            self._wake.notify()

    def notify(self, answers: Iterable[GeneratedText]) -> None:
        """Schedule answers that have new output or have failed; ignore answers that are not watched."""
        with self._wake:
            self._ready.update((answer, None) for answer in answers if answer in self._live)
            self._wake.notify()

    def __len__(self) -> int:
        return len(self._live)

    def count(self, client: str) -> int:
        """Return how many unfinished answers a client has."""
        with self._wake:
            return sum(answer.client == client for answer in self._live)

    def _run(self) -> None:
        while not (self._stopping and not self._ready):
            try:
                for answer in self._take_due():
                    self._deliver(answer)
                self._drop_cancelled()
                self._tick()
            except Exception:
                # This thread must go on, because no other thread sends answers.
                log.exception("sending failed")

    def _take_due(self) -> list[GeneratedText]:
        """Wait for a notification, a due answer or the next cancellation check. Return the answers that are due."""
        with self._wake:
            pause = self._wait_seconds()
            if pause > 0:
                self._wake.wait(pause)
            now, interval = time.monotonic(), self._interval()
            due = [answer for answer in self._ready if self._due_at(answer, interval) <= now]
            for answer in due:
                del self._ready[answer]
                self._live[answer].sent = now
        return due

    def _wait_seconds(self) -> float:
        """Return how many seconds to wait if there is no notification."""
        if not self._ready:
            return _CANCEL_CHECK_SECONDS if self._live else 1.0
        interval = self._interval()
        first = min(self._due_at(answer, interval) for answer in self._ready)
        return min(first - time.monotonic(), _CANCEL_CHECK_SECONDS)

    def _interval(self) -> float:
        return max(_SECONDS_BETWEEN, len(self._live) / _SENDS_PER_SECOND)

    def _due_at(self, answer: GeneratedText, interval: float) -> float:
        if answer.finished or self._stopping:
            return 0.0
        return self._live[answer].sent + interval if answer.streamed else float("inf")

    def _deliver(self, answer: GeneratedText) -> None:
        try:
            closed = self._send(answer)
        except Exception:
            log.exception("sending the response to request %s failed", answer.request_id)
            self._drop(answer)
        else:
            if closed:
                self._remove(answer)

    def _drop(self, answer: GeneratedText) -> None:
        """Abandon and remove an answer; log a failure to abandon it, so that the other answers are not affected."""
        try:
            self._abandon(answer)
        except Exception:
            log.exception("dropping request %s failed", answer.request_id)
        finally:
            self._remove(answer)

    def _drop_cancelled(self) -> None:
        now = time.monotonic()
        for answer, times in list(self._live.items()):
            if now - times.checked >= _CANCEL_CHECK_SECONDS:
                times.checked = now
                if answer.reply.is_cancelled():
                    self._drop(answer)

    def _remove(self, answer: GeneratedText) -> None:
        answer.closed = True
        with self._wake:
            self._live.pop(answer, None)
            self._ready.pop(answer, None)
