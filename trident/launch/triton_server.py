"""The embedded Triton: assembled from its wheel into a folder of its own, started, watched and stopped."""

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import psutil

from contract.paths import CHECKOUT
from frontend.settings import Settings
from trident.launch.children import ChildLog, start_child
from trident.launch.preflight import LaunchError, libpython_folder

_LOG_LEVELS = {
    "debug": ["--log-verbose=1"],
    "info": [],
    "warning": ["--log-info=false"],
    "error": ["--log-info=false", "--log-warning=false"],
}
_STOP_SECONDS = 8
_EXIT_SECONDS = 5
_SILENCE_SECONDS = 15.0


class TritonServer:
    """One tritonserver process and the backend processes below it."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._folder = settings.run_folder / "triton"
        self._log = ChildLog(settings.run_folder / "triton.log")
        self.log = self._log.path
        self._process: subprocess.Popen[bytes] | None = None
        self._backends: set[int] = set()
        self._answered: float | None = None

    def start(self) -> None:
        """Start Triton loading the models, and return before it has."""
        self._remove_shared_memory()
        wheel = _wheel_folder()
        self._assemble(wheel)
        self._backends, self._answered = set(), None
        command = [str(wheel / "tritonserver" / "bin" / "tritonserver"), *self._arguments()]
        # The stub finds `backends` and `contract` in the folder that Triton runs in; it ignores PYTHONPATH.
        environment = _environment(wheel, self._settings)
        pipe = subprocess.PIPE
        self._process = start_child(command, environment, cwd=self._folder, stdout=pipe, stderr=subprocess.STDOUT)
        self._log.follow(self._process.stdout)

    def check(self) -> None:
        """Raise LaunchError if Triton, or a backend process that it had, is gone, or Triton hangs.

        Triton itself revives neither. A crash can end in a lock that the signal's handler waits for, for ever.
        """
        if self._process is None or self._process.poll() is not None:
            self._log.finish()
            raise LaunchError(f"Triton stopped.\n{self.last_errors()}")
        if gone := [pid for pid in self._backends if not _alive(pid)]:
            raise LaunchError(f"Triton's backend process {gone[0]} died.\n{self.last_errors()}")
        if self._answered is None:
            return
        if self.is_live():
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > _SILENCE_SECONDS:
            raise LaunchError(f"Triton has not answered for {_SILENCE_SECONDS:.0f} seconds.\n{self.last_errors()}")

    def is_live(self) -> bool:
        """Tell whether Triton's HTTP server answers."""
        url = f"http://127.0.0.1:{self._settings.triton_http_port}/v2/health/live"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status) == 200
        except (OSError, http.client.HTTPException):
            return False

    def watch(self) -> None:
        """Note which backend processes there are, now that all models are loaded; from now on it has to answer."""
        self._answered = time.monotonic()
        if self._process:
            self._backends = {child.pid for child in psutil.Process(self._process.pid).children()}

    def stop(self, patience: float = _STOP_SECONDS) -> None:
        """Stop Triton: politely, then after `patience` seconds by force. Leaves nothing behind."""
        if self._process is None:
            return
        family = {pid for known in (self._process.pid, *self._backends) for pid in (known, *_descendants(known))}
        if patience and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                if _alive(pid):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self._remove_shared_memory()

    def last_errors(self) -> str:
        """Return the end of the log, its errors where there are any."""
        lines = self.log.read_text(errors="replace", encoding="utf-8").splitlines() if self.log.exists() else []
        errors = [line for line in lines if line.startswith("E") or "error" in line.lower()]
        return "\n".join([*(errors or lines)[-12:], f"The whole log: {self.log}"])

    def _arguments(self) -> list[str]:
        settings = self._settings
        ports = {
            "http": settings.triton_http_port,
            "grpc": settings.triton_grpc_port,
            "metrics": settings.triton_metrics_port,
        }
        return [
            f"--model-repository={settings.model_repository}",
            f"--backend-directory={self._folder / 'backends'}",
            "--model-control-mode=explicit",
            *[f"--load-model={name}" for name in settings.models],
            *[f"--{name}-address=127.0.0.1" for name in ports],
            *[f"--{name}-port={port}" for name, port in ports.items()],
            "--allow-gpu-metrics=false",
            *_LOG_LEVELS[settings.log_level],
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={_EXIT_SECONDS}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
        ]

    @property
    def _shared_memory_prefix(self) -> str:
        return f"trident-{self._settings.port}-"

    def _remove_shared_memory(self) -> None:
        """Remove what a Triton that was killed could not."""
        for segment in Path("/dev/shm").glob(f"{self._shared_memory_prefix}*"):  # noqa: S108
            segment.unlink(missing_ok=True)

    def _assemble(self, wheel: Path) -> None:
        """Lay out the backend directory. Copies, since Triton refuses links that lead out of it."""
        backends = self._folder / "backends"
        shutil.rmtree(backends, ignore_errors=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / "backends", backends, ignore=ignore)
        shutil.rmtree(self._folder / "contract", ignore_errors=True)
        shutil.copytree(CHECKOUT / "contract", self._folder / "contract", ignore=ignore)
        shutil.copytree(wheel / "tritonserver" / "backends" / "python", backends / "python", ignore=ignore)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = wheel / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy2(stub, backends / "python")


def _wheel_folder() -> Path:
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise LaunchError("The wheel that carries Triton is not installed: run `make install`.")
    return Path(spec.origin).parent


def _environment(wheel: Path, settings: Settings) -> dict[str, str]:
    libraries = [wheel.parent / "nvidia_pytriton.libs", libpython_folder()]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join([*map(str, libraries), *([inherited] if inherited else [])]),
        # The stub finds its packages through the first python on the path.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRIDENT_ENVIRONMENTS": str(CHECKOUT),
        "TRIDENT_LOG_LEVEL": settings.log_level,
    }


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
