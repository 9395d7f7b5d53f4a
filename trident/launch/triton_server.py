"""Assembles the embedded Triton from its wheel, and starts, monitors and stops it."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import psutil

from contract.paths import CHECKOUT
from frontend.settings import Settings
from trident.launch.children import ChildLog, start_child
from trident.launch.incarnations import count_incarnations, read_incarnations
from trident.launch.preflight import LaunchError, libpython_folder

_LOG_LEVELS = {
    "debug": ["--log-verbose=1"],
    "info": [],
    "warning": ["--log-info=false"],
    "error": ["--log-info=false", "--log-warning=false"],
}
# Triton's HTTP port has no checks against web pages, so it is closed to requests that load or unload models, or change
# the log settings. The key is not stored anywhere: Trident itself uses these functions only over gRPC.
_CLOSED_APIS = "model-repository,logging,trace,shared-memory"
_STOP_SECONDS = 8
_EXIT_SECONDS = 5
_HANG_SECONDS = 15.0
_MAX_PAUSE_SECONDS, _STABLE_SECONDS = 30.0, 60.0


class ModelDied(LaunchError):
    """The backend process of `model` has died. Triton and the other models work."""

    def __init__(self, model: str, message: str):
        super().__init__(message)
        self.model = model


class TritonServer:
    """One tritonserver process and its backend processes."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._folder = settings.run_folder / "triton"
        self._log = ChildLog(settings.run_folder / "triton.log")
        self.log = self._log.path
        self._process: subprocess.Popen[bytes] | None = None
        self._backends: dict[int, str] = {}
        self._expected: set[str] = set()
        """The models that should have a process all the time."""
        self._last_response: float | None = None
        self._failure = ""
        self._revivals: dict[str, tuple[float, float]] = {}
        """Model → the pause before its last revival, and the time of it."""

    def start(self) -> None:
        """Start Triton, and return without waiting for the models to be loaded."""
        self._remove_shared_memory()
        wheel = _wheel_folder()
        self._assemble(wheel)
        self._fit_models()
        shutil.rmtree(self._settings.hung_folder, ignore_errors=True)
        self._backends, self._last_response, self._failure = {}, None, ""
        count_incarnations(self._settings.incarnations_file, self._settings.models)
        command = [str(wheel / "tritonserver" / "bin" / "tritonserver"), *self._arguments()]
        # Triton's stub, the process that runs a Python backend, ignores PYTHONPATH and imports `backends` and
        # `contract` from Triton's working directory.
        environment = _environment(wheel, self._settings)
        pipe = subprocess.PIPE
        self._process = start_child(command, environment, cwd=self._folder, stdout=pipe, stderr=subprocess.STDOUT)
        self._log.follow(self._process.stdout)

    def check(self) -> None:
        """Raise LaunchError if Triton has exited or hangs, and ModelDied if one of its backend processes has exited.

        Triton does not restart a backend process. After a crash, Triton can hang instead of exiting, because its signal
        handler waits forever for a lock.
        """
        if self._process is None or self._process.poll() is not None:
            self._log.finish()
            raise LaunchError(f"Triton exited.\n{self.last_errors()}")
        if self._failure:
            raise LaunchError(self._failure)
        self._kill_hung()
        dead = [pid for pid in self._backends if not _alive(pid)]
        is_missing = bool(self._expected - set(self._backends.values()))
        if self._last_response is not None and (dead or is_missing or self._settings.models_on_demand):
            self._follow_backends()
            dead = [pid for pid in dead if pid in self._backends]
        if dead:
            name = self._backends[dead[0]]
            if not self._is_loaded(name):
                return  # it was unloaded a moment ago
            raise ModelDied(name, f"The process {dead[0]} of {name or 'a model'} died.\n{self.last_errors()}")
        if self._last_response is None:
            return
        if self.is_live():
            self._last_response = time.monotonic()
        elif time.monotonic() - self._last_response > _HANG_SECONDS:
            raise LaunchError(f"Triton has not responded for {_HANG_SECONDS:.0f} seconds.\n{self.last_errors()}")

    def _kill_hung(self) -> None:
        """Kill the processes of models that do not respond, as the frontend reports, so that they are revived."""
        for report in self._settings.hung_folder.glob("[!.]*"):
            number = int(report.read_text(encoding="utf-8"))
            report.unlink(missing_ok=True)
            if number != read_incarnations(self._settings.incarnations_file).get(report.name, 0):
                continue  # the report is about an earlier process
            for pid in [pid for pid, name in self._backends.items() if name == report.name]:
                print(f"trident: the process {pid} of {report.name} does not respond", flush=True)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def revive(self, model: str) -> None:
        """Start a new process for a model whose process has died, in the background, while the other models go on.

        If the model cannot be loaded again, `check` fails, so that Triton is restarted.
        """
        for pid in [pid for pid, name in self._backends.items() if name == model]:
            del self._backends[pid]
        threading.Thread(target=self._revive, args=(model,), name="revival", daemon=True).start()

    def _revive(self, model: str) -> None:
        began, triton = time.monotonic(), self._process
        # A model that keeps dying is revived less and less often.
        pause, at = self._revivals.get(model, (0.0, 0.0))
        pause = min(2 * pause + 0.5, _MAX_PAUSE_SECONDS) if began - at < _STABLE_SECONDS else 0.0
        self._revivals[model] = pause, began
        count_incarnations(self._settings.incarnations_file, [model])
        time.sleep(pause)
        if self._process is not triton:
            return  # Triton was restarted, with all its models
        command = [sys.executable, "-m", "trident.launch.revival", model]
        environment = os.environ | self._settings.as_environment()
        result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, encoding="utf-8")
        if self._process is not triton:
            return
        if result.returncode:
            self._failure = result.stderr.strip() or f"{model} could not be loaded again"
        else:
            print(f"trident: {model} is ready again after {time.monotonic() - began:.1f} s", flush=True)
            self._backends |= self._children()

    def is_live(self) -> bool:
        """Return whether Triton's HTTP server reports that Triton is live; False if it does not respond within 5 s."""
        url = f"http://127.0.0.1:{self._settings.triton_http_port}/v2/health/live"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status) == 200
        except (OSError, http.client.HTTPException):
            return False

    def mark_ready(self) -> None:
        """Record Triton's backend processes. Call this after all models are loaded.

        From then on, `check` also fails if one of these processes has exited or Triton hangs.
        """
        self._last_response = time.monotonic()
        self._backends = self._children()
        self._expected = set(self._backends.values())

    def _children(self) -> dict[int, str]:
        """Return the backend processes of Triton → the names of their models."""
        found = {}
        for child in psutil.Process(self._process.pid).children() if self._process else ():
            with contextlib.suppress(psutil.Error):
                # The command line of a stub has the path of the model's folder.
                match = re.search(
                    rf"{re.escape(str(self._settings.served_repository))}/([^/\s]+)", str(child.cmdline())
                )
                found[child.pid] = match[1] if match else ""
        return found

    def _follow_backends(self) -> None:
        """Update the backend processes, because models are loaded and unloaded while Triton runs."""
        running = self._children()
        for pid, name in list(self._backends.items()):
            # A model that was loaded again at once has a new process.
            if not _alive(pid) and (name in running.values() or not self._is_loaded(name)):
                del self._backends[pid]
        self._backends |= running

    def _is_loaded(self, name: str) -> bool:
        url = f"http://127.0.0.1:{self._settings.triton_http_port}/v2/models/{name}/ready"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError:
            return False
        except (OSError, http.client.HTTPException):
            return True  # Triton does not respond, so the process did not end on purpose

    def stop(self, timeout: float = _STOP_SECONDS) -> None:
        """Stop Triton and remove its shared memory.

        Triton gets SIGTERM and up to `timeout` seconds to exit; then all remaining processes are killed. If
        `timeout` is 0, all processes are killed immediately.
        """
        if self._process is None:
            return
        pids = {pid for root in (self._process.pid, *self._backends) for pid in (root, *_descendants(root))}
        if timeout and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if _alive(pid):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self._remove_shared_memory()

    def last_errors(self) -> str:
        """Return the last errors in the log, or its last lines if it has no errors, followed by the log's path."""
        lines = self.log.read_text(errors="replace", encoding="utf-8").splitlines() if self.log.exists() else []
        errors = [line for line in lines if line.startswith("E") or "error" in line.lower()]
        return "\n".join([*(errors or lines)[-12:], f"Full log: {self.log}"])

    def _fit_models(self) -> None:
        """Write the model repository that Triton loads. Raise LaunchError if the models do not fit into memory."""
        command = [sys.executable, "-m", "trident.launch.memory_plan"]
        environment = os.environ | self._settings.as_environment()
        result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, encoding="utf-8")
        if result.returncode:
            raise LaunchError(result.stderr.strip())
        print(result.stdout, end="", flush=True)

    def _arguments(self) -> list[str]:
        settings = self._settings
        ports = {
            "http": settings.triton_http_port,
            "grpc": settings.triton_grpc_port,
            "metrics": settings.triton_metrics_port,
        }
        return [
            f"--model-repository={settings.served_repository}",
            f"--backend-directory={self._folder / 'backends'}",
            "--model-control-mode=explicit",
            *[f"--load-model={name}" for name in (*self._networks(), *settings.models)],
            *[f"--{name}-address=127.0.0.1" for name in ports],
            *[f"--{name}-port={port}" for name, port in ports.items()],
            f"--http-restricted-api={_CLOSED_APIS}:trident-key={secrets.token_hex(16)}",
            "--allow-gpu-metrics=false",
            *_LOG_LEVELS[settings.log_level],
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={_EXIT_SECONDS}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            *_trace_options(settings.otlp_endpoint),
        ]

    def _networks(self) -> list[str]:
        """Return the models that compute the networks of other models. `_fit_models` has listed them."""
        content = json.loads(self._settings.footprints_file.read_text(encoding="utf-8"))
        networks: list[str] = content["networks"]
        return networks

    @property
    def _shared_memory_prefix(self) -> str:
        return f"trident-{self._settings.port}-"

    def _remove_shared_memory(self) -> None:
        """Remove the shared memory segments that a killed Triton left behind."""
        for segment in Path("/dev/shm").glob(f"{self._shared_memory_prefix}*"):  # noqa: S108
            segment.unlink(missing_ok=True)

    def _assemble(self, wheel: Path) -> None:
        """Copy the project's backends, `contract` and Triton's Python backend to the run folder.

        The folders are copied, not linked, because Triton rejects links that lead out of the backend directory.
        """
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


def _trace_options(endpoint: str | None) -> list[str]:
    """Return the options that make Triton send spans of the requests that the frontend traces, and of no others."""
    if not endpoint:
        return []
    values = ["mode=opentelemetry", f"opentelemetry,url={endpoint.rstrip('/')}/v1/traces", "rate=0", "level=TIMESTAMPS"]
    return [f"--trace-config={value}" for value in values]


def _wheel_folder() -> Path:
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise LaunchError("Triton's wheel is not installed; run `make install`.")
    return Path(spec.origin).parent


def _environment(wheel: Path, settings: Settings) -> dict[str, str]:
    libraries = [wheel.parent / "nvidia_pytriton.libs", libpython_folder()]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **settings.without_secrets(os.environ),
        "LD_LIBRARY_PATH": ":".join([*map(str, libraries), *([inherited] if inherited else [])]),
        # The stub finds installed packages through the first python on PATH.
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
