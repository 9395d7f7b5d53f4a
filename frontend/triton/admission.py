"""Limits the requests in progress per model: further requests are rejected immediately instead of waiting."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import Overloaded


class AdmissionLimiter:
    """Counts requests per model, for models whose queue has no other limit.

    Triton's own queue limit is not used: with it, this version's dynamic batcher overlooks for half a second a request
    that arrives just as another ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_progress: Counter[str] = Counter()

    @contextmanager
    def enter(self, model: str, limit: int) -> Iterator[None]:
        """Count a request while the block runs. Raises Overloaded if `limit` requests are already in progress."""
        with self._lock:
            if self._in_progress[model] >= limit:
                raise Overloaded("The model's queue is full")
            self._in_progress[model] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_progress[model] -= 1
