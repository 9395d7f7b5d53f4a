"""Limits the requests in progress per model. Further requests are rejected immediately instead of waiting."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import Overloaded


class AdmissionLimiter:
    """Counts the requests in progress per model, for models whose backend does not limit its queue.

    Triton's own queue limit is not used: with that limit, the dynamic batcher of Triton 2.51 delays a request by half a
    second if the request arrives just as another request ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_progress: Counter[str] = Counter()

    @contextmanager
    def enter(self, model: str, limit: int) -> Iterator[None]:
        """Count a request to `model` while the block runs.

        Raises Overloaded if the model already has `limit` requests in progress.
        """
        with self._lock:
            if self._in_progress[model] >= limit:
                raise Overloaded("The model's queue is full")
            self._in_progress[model] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_progress[model] -= 1
