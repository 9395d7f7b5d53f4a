"""Decides how many threads compute a step.

All threads of a step wait for the slowest one. If another process uses a core, the thread on that core delays all
others, and one thread fewer is faster.
"""

from collections import defaultdict, deque
from statistics import median

# A step is slow if it takes this many times as long as the best one of its kind.
_SLOW = 2.5
# So many slow steps in a row remove a thread, for so many steps. Then all threads are tried again.
_WINDOW, _PAUSE = 8, 128


class Pace:
    """Tells from the durations of steps how many threads to use."""

    def __init__(self, threads: int):
        self._all = threads
        self.threads = threads
        """The number of threads for the next step."""
        self._best: defaultdict[tuple[int, int], float] = defaultdict(lambda: float("inf"))
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._left = 0

    def record(self, tokens: int, position: int, seconds: float) -> None:
        """Record the duration of a step of so many tokens, of which the last one in a sequence has this position.

        The step is compared with others of about the same size and position.
        """
        if self._left:
            self._left -= 1
            if not self._left:
                self.threads = self._all
            return
        size = tokens.bit_length(), position.bit_length()
        if seconds < self._best[size]:
            self._best[size] = seconds
        self._recent.append(seconds / self._best[size])
        if self._all > 1 and len(self._recent) == _WINDOW and median(self._recent) > _SLOW:
            self.threads, self._left = self._all - 1, _PAUSE
            self._recent.clear()
