"""Sends answers back through Triton from one thread, and notices callers who have left."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from backends.generation.output.answer import Answer

log = logging.getLogger(__name__)

# Every response costs CPU on its way to the client, which the engine needs: one answer's follow at this distance, and
# all together are this many a second. Tokens that wait meanwhile go out together; the first and the last never wait.
_SECONDS_BETWEEN = 0.02
_SENDS_PER_SECOND = 150
_CANCEL_CHECK_SECONDS = 0.2


class _Pace:
    """When an answer was last sent something, and when its caller was last looked for."""

    def __init__(self) -> None:
        self.sent = float("-inf")
        self.checked = time.monotonic()


class Sender:
    """Delivers progress, all from its own thread.

    `send(answer)` sends what is new and returns whether the answer is over; `abandon(answer)` is called once for one
    whose caller has left; `tick()` is called in between, at least once a second.
    """

    def __init__(self, send: Callable[[Answer], bool], abandon: Callable[[Answer], None], tick: Callable[[], None]):
        self._send, self._abandon, self._tick = send, abandon, tick
        self._wake = threading.Condition()
        self._live: dict[Answer, _Pace] = {}
        self._ready: dict[Answer, None] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is ready, then stop."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def watch(self, answer: Answer) -> None:
        """Begin to look after an answer: from now on its caller's leaving is noticed."""
        with self._wake:
            self._live[answer] = _Pace()
            self._wake.notify()

    def notify(self, answers: Iterable[Answer]) -> None:
        """Say that answers have something new."""
        with self._wake:
            self._ready.update((answer, None) for answer in answers if answer in self._live)
            self._wake.notify()

    def __len__(self) -> int:
        return len(self._live)

    def count(self, client: str) -> int:
        """Return how many answers of a client it looks after."""
        with self._wake:
            return sum(answer.client == client for answer in self._live)

    def _run(self) -> None:
        while not (self._stopping and not self._ready):
            try:
                for answer in self._take_due():
                    self._deliver(answer)
                self._drop_abandoned()
                self._tick()
            except Exception:
                # Nobody would send anything any more if this thread died.
                log.exception("sending failed")

    def _take_due(self) -> list[Answer]:
        """Wait until answers are due, or for the next look at abandoned ones. Returns those that are due."""
        with self._wake:
            pause = self._pause()
            if pause > 0:
                self._wake.wait(pause)
            now, interval = time.monotonic(), self._interval()
            due = [answer for answer in self._ready if self._due_at(answer, interval) <= now]
            for answer in due:
                del self._ready[answer]
                self._live[answer].sent = now
        return due

    def _pause(self) -> float:
        """Return how long nothing will be due, unless something new comes."""
        if not self._ready:
            return _CANCEL_CHECK_SECONDS if self._live else 1.0
        interval = self._interval()
        first = min(self._due_at(answer, interval) for answer in self._ready)
        return min(first - time.monotonic(), _CANCEL_CHECK_SECONDS)

    def _interval(self) -> float:
        return max(_SECONDS_BETWEEN, len(self._live) / _SENDS_PER_SECOND)

    def _due_at(self, answer: Answer, interval: float) -> float:
        if answer.finished or self._stopping:
            return 0.0
        return self._live[answer].sent + interval if answer.streamed else float("inf")

    def _deliver(self, answer: Answer) -> None:
        try:
            over = self._send(answer)
        except Exception:
            log.exception("request %s could not be answered", answer.request_id)
            self._give_up(answer)
        else:
            if over:
                self._forget(answer)

    def _give_up(self, answer: Answer) -> None:
        """Drop an answer that nobody can get any more; the others must not notice."""
        try:
            self._abandon(answer)
        except Exception:
            log.exception("request %s could not even be dropped", answer.request_id)
        finally:
            self._forget(answer)

    def _drop_abandoned(self) -> None:
        now = time.monotonic()
        for answer, pace in list(self._live.items()):
            if now - pace.checked >= _CANCEL_CHECK_SECONDS:
                pace.checked = now
                if answer.reply.is_cancelled():
                    self._give_up(answer)

    def _forget(self, answer: Answer) -> None:
        answer.over = True
        with self._wake:
            self._live.pop(answer, None)
            self._ready.pop(answer, None)
