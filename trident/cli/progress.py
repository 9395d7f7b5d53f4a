"""Progress of downloads and conversions where standard error is no terminal: plain lines instead of a moving bar."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

_SECONDS = 5.0
_FORMAT = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} remaining"


def prepare_plain_progress() -> None:
    """Choose the text of plain lines. Must be called before the module tqdm is imported, which then reads it."""
    if sys.stderr is not None and not sys.stderr.isatty():
        os.environ.setdefault("TQDM_BAR_FORMAT", _FORMAT)


@contextlib.contextmanager
def plain_progress() -> Iterator[None]:
    """Turn progress bars into a line every few seconds while the block runs, unless standard error is a terminal."""
    if sys.stderr is None or sys.stderr.isatty():
        yield
        return
    original = sys.stderr
    sys.stderr = PlainLines(original)
    try:
        yield
    finally:
        sys.stderr = original


class PlainLines:
    """A text stream that writes progress, which begins with a carriage return, as lines."""

    def __init__(self, stream: TextIO):
        self._stream, self._progress, self._written_at = stream, "", 0.0
        self._is_progress = False

    def write(self, text: str) -> int:
        """Write a text, or keep progress until it is time for a line."""
        is_end, self._is_progress = text == "\n" and self._is_progress, text.startswith("\r")
        if self._is_progress:
            self._progress = text.replace("\x1b[K", "").strip() or self._progress
            if time.monotonic() - self._written_at >= _SECONDS:
                self._write_progress()
        elif is_end:
            self._write_progress()
        else:
            self._write_progress()
            self._stream.write(text)
        return len(text)

    def _write_progress(self) -> None:
        if self._progress:
            self._stream.write(f"{self._progress}\n")
            self._stream.flush()
            self._progress, self._written_at = "", time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
