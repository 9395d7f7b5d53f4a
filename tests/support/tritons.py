"""Tritons without a frontend, as the instances of another Trident, and a Trident that uses them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import requests

from contract.paths import default_model_repository
from frontend.settings import Settings
from tests.support.live import url, wait_until
from tests.support.stack import free_ports, running_stack
from trident.launch.triton_server import TritonServer

_START_SECONDS = 120


class Triton:
    """A Triton with `models` from the folder `repository`."""

    def __init__(self, models: Sequence[str], repository: Path | None = None):
        port, http, grpc, metrics = free_ports(4)
        self.settings = Settings(
            port=port,
            triton_http_port=http,
            triton_grpc_port=grpc,
            triton_metrics_port=metrics,
            models=tuple(models),
            model_repository=repository or default_model_repository(),
        )
        self.base_url = f"http://127.0.0.1:{http}"
        self._server = TritonServer(self.settings)

    def entry(self, **options: object) -> dict[str, object]:
        """Return the instance of all models, as the settings file lists it."""
        ports = {"grpc_port": self.settings.triton_grpc_port, "metrics_port": self.settings.triton_metrics_port}
        return {"base_url": self.base_url} | ports | options

    def start(self) -> None:
        """Start Triton, and return when its models are loaded."""
        self._server.start()
        self.wait()

    def wait(self) -> None:
        """Wait until the models are loaded."""
        wait_until(self.is_ready, _START_SECONDS, "Triton")
        self._server.mark_ready()

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.base_url}/v2/health/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def process(self) -> psutil.Process:
        """Return Triton's own process."""
        assert self._server._process is not None
        return psutil.Process(self._server._process.pid)

    def stub(self, model: str) -> psutil.Process:
        """Return the backend process of a model."""
        return self._child(f"/{model}/")

    def engine(self) -> psutil.Process:
        """Return the engine process of the chat model."""
        return self._child("backends.generation.engine.process")

    def _child(self, word: str) -> psutil.Process:
        children = self.process().children(recursive=True)
        alive = (child for child in children if child.status() != psutil.STATUS_ZOMBIE)
        return next(child for child in alive if word in " ".join(child.cmdline()))

    def stop(self, timeout: float = 8) -> None:
        self._server.stop(timeout)


@contextmanager
def running_tritons(count: int, models: Sequence[str]) -> Iterator[list[Triton]]:
    """Run Tritons with these models until the block ends."""
    with ExitStack() as stack:
        tritons = [Triton(models) for _ in range(count)]
        for triton in tritons:
            stack.callback(triton.stop)
            triton._server.start()
        for triton in tritons:
            triton.wait()
        yield tritons


@contextmanager
def running_gateway(entries: Sequence[dict[str, object]], *flags: str) -> Iterator[Settings]:
    """Run a Trident that uses these instances, until the block ends."""
    with running_stack([], "--instances", json.dumps(entries), *flags) as settings:
        yield settings


def instance_counts(gateway: Settings, model: str) -> dict[str, float]:
    """Return how many requests each instance of a model has had, by its URL, as /metrics reports."""
    counts: dict[str, float] = {}
    for line in requests.get(url(gateway, "/metrics"), timeout=10).text.splitlines():
        if line.startswith("trident_instance_requests_total{") and f'instance="{model}@' in line:
            base_url = line.partition(f'instance="{model}@')[2].partition('"')[0]
            counts[base_url] = counts.get(base_url, 0) + float(line.rsplit(" ", 1)[1])
    return counts


def is_up(gateway: Settings, model: str, triton: Triton) -> bool:
    """Return whether the gateway sends requests for `model` to this Triton."""
    text = requests.get(url(gateway, "/metrics"), timeout=10).text
    name = f'instance="{model}@{triton.base_url}"'
    return any(
        line.startswith("trident_instance_up{") and name in line and line.endswith(" 1.0") for line in text.splitlines()
    )
