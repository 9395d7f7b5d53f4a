"""Logs of child processes: files that rotate, and the terminal."""

import logging
import sys
import threading
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

_MAX_BYTES, _MAX_FILES = 10_000_000, 5


class ChildLog:
    """The log of one kind of process in `path`; an earlier instance's becomes path.1. `echo`: also to stderr."""

    def __init__(self, path: Path, echo: bool = False):
        self.path, self._echo = path, echo
        path.parent.mkdir(parents=True, exist_ok=True)
        has_old = path.exists() and path.stat().st_size > 0
        self._handler = RotatingFileHandler(
            path, maxBytes=_MAX_BYTES, backupCount=_MAX_FILES - 1, encoding="utf-8", errors="replace"
        )
        if has_old:
            self._handler.doRollover()

    def follow(self, output: IO[bytes] | None) -> None:
        """Copy what a process writes, until it has ended."""
        assert output is not None  # noqa: S101
        threading.Thread(target=self._copy, args=(output,), name=f"log {self.path.name}", daemon=True).start()

    def _copy(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip("\n")
                self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, text, None, None))
                if self._echo:
                    sys.stderr.write(text + "\n")  # in one piece, beside what the launcher says
