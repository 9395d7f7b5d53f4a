"""Opens ONNX networks in onnxruntime, whose memory is given back when they are idle."""

import ctypes
import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

log = logging.getLogger(__name__)

_PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider"}

# onnxruntime keeps the memory of the largest run. When a process has been idle for a minute, and has grown by at least
# this much, its sessions are opened again, which takes a fraction of a second.
_IDLE_SECONDS, _CHECK_SECONDS = 60.0, 10.0
_MIN_GROWTH = 64 << 20


class OnnxSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session that can be opened again while it is idle. `run` may be called from any thread.

    Callers must not keep what `get_inputs` and `get_outputs` return, because that keeps the previous session in memory.
    """

    def __init__(self, path: Path, options: onnxruntime.SessionOptions, providers: list[str]):
        self._changed = threading.Condition()
        self._running, self._reopening = 0, False
        self.used_at = time.monotonic()
        self._path, self._file = path, _identity(path)
        super().__init__(path, options, providers=providers)

    def run(self, *arguments: Any, **options: Any) -> Any:
        """See onnxruntime. Waits while the session is being opened again."""
        with self._changed:
            self._changed.wait_for(lambda: not self._reopening)
            self._running += 1
        try:
            return super().run(*arguments, **options)
        finally:
            with self._changed:
                self._running -= 1
                self.used_at = time.monotonic()

    def reopen(self, idle_seconds: float) -> None:
        """Open the session again, unless it is running or was used within the last `idle_seconds`.

        Nothing happens if the file is not the same one any more, or if it cannot be opened.
        """
        with self._changed:
            is_idle = not self._running and time.monotonic() - self.used_at >= idle_seconds
            if not is_idle or _identity(self._path) != self._file:
                return
            self._reopening = True
        session = getattr(self, "_sess")  # noqa: B009 - the parent class declares no type
        try:
            self.set_providers(self.get_providers())
        except Exception:
            self._sess = session
            raise
        finally:
            with self._changed:
                self._reopening = False
                self._changed.notify_all()


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at the same path, or None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


class _IdleMemory:
    """The thread that opens the sessions of this process again after they have been idle."""

    def __init__(self, idle_seconds: float, check_seconds: float, memory: Callable[[], int]):
        self._idle_seconds, self._check_seconds, self._memory = idle_seconds, check_seconds, memory
        self._sessions: list[OnnxSession] = []
        self._baseline: int | None = None
        self._thread: threading.Thread | None = None

    def watch(self, session: OnnxSession) -> None:
        self._sessions.append(session)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="idle-memory", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(self._check_seconds)
            try:
                self.release()
            except Exception:
                log.exception("idle memory was not released")

    def release(self) -> None:
        """Release memory if all sessions are idle and the process has grown since the last time."""
        if time.monotonic() - max(session.used_at for session in self._sessions) < self._idle_seconds:
            return
        before = self._memory()
        if self._baseline is None:  # how the process was after its first period of use
            self._baseline = before - _MIN_GROWTH
        if before - self._baseline < _MIN_GROWTH:
            return
        for session in self._sessions:
            session.reopen(self._idle_seconds)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self._baseline = self._memory()
        log.info("released %d MB of idle memory", (before - self._baseline) >> 20)


def _own_memory() -> int:
    """Return the memory of this process that is not shared with files, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) << 10


_idle_memory = _IdleMemory(_IDLE_SECONDS, _CHECK_SECONDS, _own_memory)


def open_session(path: Path, device: str, threads: int) -> OnnxSession:
    """Return a session on CPU or CUDA that uses `threads` threads per run (0: one per available core)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Between runs, the session's threads sleep instead of busy-waiting, so that other work gets the CPU.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = OnnxSession(path, options, [_PROVIDERS[device.upper()]])
    if device.upper() == "CPU":
        _idle_memory.watch(session)
    return session
