"""Bounds the requests under way at each model: one more is refused at once, instead of waiting without end."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import Overloaded


class Admission:
    """Counts by model, for models whose queue nothing else bounds.

    Triton could: but a queue with a limit makes this version's dynamic batcher overlook a request that comes in the
    moment another one ends, for half a second.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def enter(self, model: str, limit: int) -> Iterator[None]:
        """Count a request while the block runs. Raises Overloaded if there are `limit` already."""
        with self._lock:
            if self._under_way[model] >= limit:
                raise Overloaded("The model's queue is full")
            self._under_way[model] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[model] -= 1
