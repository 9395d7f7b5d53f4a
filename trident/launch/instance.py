"""An instance on this machine, told apart by its port: who holds its run folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontend.settings import Settings
from trident.launch.preflight import LaunchError


class Instance:
    """The run folder of `settings`: its lock, the launcher's process id, its URL."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._url_file = settings.run_folder / "url"

    @contextmanager
    def hold(self, url: str) -> Iterator[None]:
        """Hold the run folder for this process. Raises LaunchError if another launcher has it."""
        self.settings.run_folder.mkdir(parents=True, exist_ok=True)
        with (self.settings.run_folder / "lock").open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LaunchError(
                    f"Trident already runs, or starts, on port {self.settings.port}: `trident stop --port "
                    f"{self.settings.port}` stops it; --port chooses another."
                ) from None
            self._url_file.write_text(url, encoding="utf-8")
            yield

    def is_running(self) -> bool:
        """Return whether a launcher holds the run folder and has written its process id."""
        return _is_held(self.settings.run_folder) and self.settings.pid_file.exists()

    def write_pid(self) -> None:
        """Note that this process is the launcher."""
        self.settings.pid_file.write_text(str(os.getpid()), encoding="utf-8")

    def pid(self) -> int:
        """Return the launcher's process id."""
        return int(self.settings.pid_file.read_text(encoding="utf-8"))

    def url(self) -> str:
        """Return where this machine reaches the API, without /v1."""
        return self._url_file.read_text(encoding="utf-8")


def running_instances(cache: Path) -> Iterator[int]:
    """Yield the ports of the instances that run with this cache."""
    for folder in sorted(cache.glob("run/*"), key=lambda folder: folder.name.zfill(5)):
        if folder.name.isdigit() and _is_held(folder) and (folder / "trident.pid").exists():
            yield int(folder.name)


def _is_held(folder: Path) -> bool:
    try:
        with (folder / "lock").open("r+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
