"""The instances of Trident on this machine. Each instance locks its run folder, the folder `run/PORT` in the cache."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from trident.launch.preflight import LaunchError

_LOCK_SECONDS = 1.0


class Instance:
    """An instance's run folder, named after the port. It has files for the lock, the PID, the URL and the address."""

    def __init__(self, run_folder: Path):
        self._folder = run_folder
        self.port = int(run_folder.name)
        self._url_file, self._pid_file = run_folder / "url", run_folder / "trident.pid"
        self._key_file, self._about_file = run_folder / "local_key", run_folder / "about.json"

    @contextmanager
    def acquire(self, url: str, about: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
        """Lock the run folder while the block runs. Raise LaunchError if another launcher has locked the folder.

        `about` has the settings that commands need to know: see `about`.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w", encoding="utf-8") as lock:
            self._lock(lock)
            self._pid_file.unlink(missing_ok=True)  # left by a launcher that was killed
            for name in ("keys_in_use", "temporary", "stopping"):
                (self._folder / name).unlink(missing_ok=True)
            self._url_file.write_text(url, encoding="utf-8")
            self._about_file.write_text(json.dumps(dict(about)), encoding="utf-8")
            try:
                yield
            finally:
                self._pid_file.unlink(missing_ok=True)
                self._key_file.unlink(missing_ok=True)

    def _lock(self, lock: IO[str]) -> None:
        """Acquire the lock. Retry for up to 1 second, because `is_running` also acquires it for a moment."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LaunchError(
                        f"Trident is already running or starting on port {self.port}. "
                        f"Stop it with `trident stop --port {self.port}`, or choose another port with --port."
                    ) from None
                time.sleep(0.05)

    def write_key(self) -> None:
        """Make the key with which this machine's programs may use the instance, and write it to a private file."""
        self._key_file.unlink(missing_ok=True)
        descriptor = os.open(self._key_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"tr-local-{secrets.token_urlsafe(32)}")

    def headers(self) -> dict[str, str]:
        """Return the headers of requests to the instance by programs of the user who runs it."""
        try:
            return {"Authorization": f"Bearer {self._key_file.read_text(encoding='utf-8')}"}
        except OSError:
            return {}

    def is_running(self) -> bool:
        """Return whether a launcher holds the lock of the run folder and has written its PID."""
        try:
            with (self._folder / "lock").open(encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return self._pid_file.exists()
        except PermissionError:
            return False  # another user's
        return False

    def write_pid(self) -> None:
        """Write the PID of this process, the launcher, to the PID file."""
        new = self._pid_file.with_suffix(".new")
        new.write_text(str(os.getpid()), encoding="utf-8")
        new.replace(self._pid_file)

    def pid(self) -> int:
        """Return the launcher's PID. Raise FileNotFoundError if no PID is recorded, as after a normal exit."""
        return int(self._pid_file.read_text(encoding="utf-8"))

    def url(self) -> str:
        """Return the URL of the API on this machine, without /v1."""
        return self._url_file.read_text(encoding="utf-8")

    def models(self) -> list[str]:
        """Return the names of the models in the repository that the instance's Triton loads, if it has one."""
        folder = self._folder / "triton" / "models"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def is_temporary(self) -> bool:
        """Return whether the instance runs only for one command."""
        return (self._folder / "temporary").exists()

    def is_stopping(self) -> bool:
        """Return whether the instance has been told to stop."""
        return (self._folder / "stopping").exists()

    def mark_stopping(self) -> None:
        """Record that the instance stops."""
        (self._folder / "stopping").touch()

    def mark_temporary(self) -> None:
        """Record that the instance runs only for one command."""
        (self._folder / "temporary").touch()

    def about(self) -> dict[str, Any]:
        """Return what commands need to know, as far as it is known.

        The keys are `address` (that the API listens on), `stop_seconds` (the time for requests in progress when the
        instance stops) and `on_demand` (whether models are loaded and unloaded on demand).
        """
        try:
            about: dict[str, Any] = json.loads(self._about_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return about


def running_instances(cache: Path) -> Iterator[Instance]:
    """Yield the running instances that use this cache, ordered by port."""
    folders = [folder for folder in cache.glob("run/*") if folder.name.isdigit()]
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        if (instance := Instance(folder)).is_running():
            yield instance
