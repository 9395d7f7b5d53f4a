"""A whole Trident on ports of its own, with the real Triton and the starter models, started once."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI

from bench.recordings import MOONSHINE, package_files
from bench.stack import running_stack
from export.catalog import load_catalog

CHECKOUT = Path(__file__).resolve().parents[2]
STARTERS = [entry.name for entry in load_catalog().values() if entry.starter]
MODEL = STARTERS[0]


@pytest.fixture(scope="session")
def stack():
    with running_stack(STARTERS) as settings:
        yield settings


@pytest.fixture(scope="session")
def lenient(stack):
    """A second frontend on the same Triton, as an operator would start it who serves AHA's and the router's clients."""
    flags = ["--unknown-model", "default", "--transcribe-audio", "--allow-files", str(package_files(MOONSHINE))]
    with running_stack(STARTERS, *flags, "--allow-hosts", "127.0.0.1", over=stack) as settings:
        yield settings


@pytest.fixture(scope="session")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def export(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "export", *arguments], cwd=CHECKOUT, check=True)


def run_in(environment: str, module: str, *arguments: str | Path) -> str:
    """Run a module of these tests in one of the environments that have torch; return what it prints."""
    subprocess.run(["make", "--silent", f"{environment}/ready"], cwd=CHECKOUT, check=True)
    command = [CHECKOUT / environment / "bin" / "python", "-m", f"tests.live.{module}", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout


def export_own(name: str, weights: Path) -> Path:
    """Export a model of a folder of weights, by the real command, into a cache beside it; return the cache."""
    cache = weights.parent / "cache"
    command = [sys.executable, "-m", "export", name, "--weights", weights]
    environment = {"TRIDENT_CACHE": str(cache), "PATH": "/usr/bin:/bin", "HOME": str(weights.parent)}
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True)
    return cache


def url(settings, path: str) -> str:
    return f"http://127.0.0.1:{settings.port}{path}"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def metric(settings, name: str) -> float:
    """One of the backend's numbers, as Triton publishes it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.triton_metrics_port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"trident_generation_{name}{{"))


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
