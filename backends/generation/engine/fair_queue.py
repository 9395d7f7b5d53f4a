"""Which requests the engine works on, and which wait: fair between clients."""

import math
from collections import Counter
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request by its number, and whose it is."""

    @property
    def number(self) -> int: ...
    @property
    def client(self) -> str: ...


Request = TypeVar("Request", bound=Waiting)


class FairQueue(Generic[Request]):
    """Has `slots` requests under way. A slot goes to the client that has the fewest, in order among its own.

    A client takes seven eighths at most, rounded up, of the slots that the others leave: of eight or more, one stays
    free for the next client.
    """

    def __init__(self, slots: int):
        self._slots = slots
        self._waiting: dict[int, Request] = {}
        self._under_way: dict[int, str] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, request: Request) -> None:
        """Let a request wait for its turn."""
        self._waiting[request.number] = request

    def take(self) -> Request | None:
        """Return the request whose turn it is, which is under way from now on; None if none may be."""
        if not self._waiting or len(self._under_way) >= self._slots:
            return None
        held = Counter(self._under_way.values())
        request = min(self._waiting.values(), key=lambda waiting: held[waiting.client])
        own = held[request.client]
        left = self._slots - (len(self._under_way) - own)
        if own >= math.ceil(left * 7 / 8):
            return None
        self._under_way[request.number] = request.client
        return self._waiting.pop(request.number)

    def end(self, number: int) -> None:
        """Give back a request's place, or its turn."""
        self._under_way.pop(number, None)
        self._waiting.pop(number, None)
