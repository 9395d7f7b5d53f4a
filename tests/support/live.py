"""Helpers for the live and heavy tests: export models, build URLs, read metrics, wait, run commands."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from export.catalog import load_catalog
from frontend.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
STARTERS = [entry.name for entry in load_catalog().values() if entry.starter]
MODEL = "smollm2-135m"
"""The chat model of most tests: unlike the one of the starter set, it loads and responds fast."""

MODELS = [MODEL, *STARTERS[1:]]


def export(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "trident", "export", *arguments], cwd=CHECKOUT, check=True)


def run_in(environment: str, module: str, *arguments: str | Path) -> str:
    """Run a module of `tests.support` and return its standard output.

    `environment` is the folder of a virtual environment with torch, such as `.venv-onnx`. It is created if needed.
    """
    subprocess.run(["make", "--silent", f"{environment}/ready"], cwd=CHECKOUT, check=True)
    python = str(CHECKOUT / environment / "bin" / "python")
    command = [python, "-m", f"tests.support.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout


def export_weights(name: str, weights: Path) -> Path:
    """Export a model from the folder `weights`, and return the path of the model repository beside that folder."""
    repository = weights.parent / "repository"
    command = [sys.executable, "-m", "trident", "export", name, "--weights", str(weights)]
    environment = {"TRIDENT_CACHE": str(weights.parent / "cache"), "TRIDENT_MODEL_REPOSITORY": str(repository)}
    environment |= {"PATH": "/usr/bin:/bin", "HOME": str(weights.parent)}
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True)
    return repository


def url(settings: Settings, path: str) -> str:
    return f"http://127.0.0.1:{settings.port}{path}"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def metric(settings: Settings, name: str) -> float:
    """Return the value of the generation backend's metric `trident_generation_{name}`, from Triton's endpoint."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.triton_metrics_port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"trident_generation_{name}{{"))


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {seconds} s waiting for {what}"
        time.sleep(0.05)


def shell(command: str) -> str:
    """Run a shell command; return its standard output."""
    return subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", timeout=60, check=True).stdout
