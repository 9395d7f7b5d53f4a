"""Assigns the engine's slots to waiting requests, and shares them fairly between clients."""

import math
from collections import Counter
from typing import Generic, Protocol, TypeVar


class QueuedRequest(Protocol):
    """The attributes of a request that the queue uses."""

    @property
    def request_id(self) -> int: ...
    @property
    def client(self) -> str: ...


Request = TypeVar("Request", bound=QueuedRequest)


class FairQueue(Generic[Request]):
    """The requests that wait for one of the engine's `slots` slots. Each running request holds one slot.

    A free slot goes to the waiting client that holds the fewest slots, for its oldest request. A client may hold at
    most seven eighths, rounded up, of the slots that other clients do not hold. If there are at least eight such
    slots, at least one stays free for another client.
    """

    def __init__(self, slots: int):
        self._slots = slots
        self._waiting: dict[int, Request] = {}
        self._active: dict[int, str] = {}

    def __len__(self) -> int:
        """Return how many requests are waiting."""
        return len(self._waiting)

    def add(self, request: Request) -> None:
        """Add a request to the queue."""
        self._waiting[request.request_id] = request

    def next(self) -> Request | None:
        """Give a slot to the next request and return the request. Return None if no waiting request may have a slot."""
        if not self._waiting or len(self._active) >= self._slots:
            return None
        held = Counter(self._active.values())
        request = min(self._waiting.values(), key=lambda waiting: held[waiting.client])
        own = held[request.client]
        available = self._slots - (len(self._active) - own)
        if own >= math.ceil(available * 7 / 8):
            return None
        self._active[request.request_id] = request.client
        return self._waiting.pop(request.request_id)

    def remove(self, request_id: int) -> None:
        """Remove a request, whether it holds a slot or is waiting."""
        self._active.pop(request_id, None)
        self._waiting.pop(request_id, None)
