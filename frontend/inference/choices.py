"""Several answers to one conversation, side by side."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import gevent
from gevent.queue import Empty, SimpleQueue

from frontend.inference.response_stream import HEARTBEAT_SECONDS


class Responses(Protocol):
    """Where a choice has its text from."""

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]: ...
    def close(self) -> None: ...


class Choices:
    """`count` answers, of which `start` begins some and returns them once each has its first response.

    The first one is begun alone: when it has a response its prompt is in the engine's cache, and the others need not
    compute it again. Raises APIError.
    """

    def __init__(self, start: Callable[[Sequence[int]], Sequence[Responses]], count: int):
        self._answers = list(start([0]))
        if count > 1:
            try:
                self._answers += start(range(1, count))
            except BaseException:
                self.close()
                raise

    def responses(self, heartbeat: bool = False) -> Iterator[tuple[int, dict[str, Any]] | None]:
        """Yield the responses of all, each with its choice's number; None for a second without any if asked."""
        try:
            if len(self._answers) == 1:
                for response in self._answers[0].responses(heartbeat):
                    yield None if response is None else (0, response)
            else:
                yield from self._merged(heartbeat)
        finally:
            self.close()

    def close(self) -> None:
        """Stop whatever is still going on."""
        for answer in self._answers:
            answer.close()

    def _merged(self, heartbeat: bool) -> Iterator[tuple[int, dict[str, Any]] | None]:
        arrived: SimpleQueue[tuple[int, dict[str, Any] | BaseException | None]] = SimpleQueue()
        readers = [gevent.spawn(_read, number, answer, arrived) for number, answer in enumerate(self._answers)]
        open_answers = len(readers)
        try:
            while open_answers:
                try:
                    number, response = arrived.get(timeout=HEARTBEAT_SECONDS if heartbeat else None)
                except Empty:
                    yield None
                    continue
                if isinstance(response, BaseException):
                    raise response
                if response is None:
                    open_answers -= 1
                else:
                    yield number, response
        finally:
            gevent.killall(readers)


def _read(number: int, answer: Responses, arrived: Any) -> None:
    try:
        for response in answer.responses():
            arrived.put((number, response))
        arrived.put((number, None))
    except BaseException as error:
        arrived.put((number, error))
