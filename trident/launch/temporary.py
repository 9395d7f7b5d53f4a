"""A Trident that a command starts for its own requests and stops afterwards: `python -m trident.launch.temporary`."""

import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from contract.paths import CHECKOUT
from export.memory import memory_limit
from frontend.settings import Settings, load_settings
from trident.launch.children import start_child
from trident.launch.instance import Instance
from trident.launch.preflight import LaunchError

_START_SECONDS, _STOP_SECONDS = 600.0, 20.0
_CHECK_SECONDS = 0.05
_LOG_CHARACTERS = 2000


@contextmanager
def temporary_instance(settings: Settings, models: Sequence[str], wait: Callable[[], None]) -> Iterator[Instance]:
    """Run an instance with these exported models, on free ports of this machine, until the block ends.

    The settings apply, except for addresses, keys, limits and the gateway. `wait` is called again and again while it
    starts. The instance ends with this process, also if this process is killed. Raises LaunchError if it does not
    start.
    """
    ports, limit = _free_ports(4), settings.max_memory_gb or math.inf
    with tempfile.TemporaryDirectory(prefix="trident-", ignore_cleanup_errors=True) as folder:
        own = replace(settings, **_overrides(ports, tuple(models), Path(folder), limit))
        instance, log = Instance(own.run_folder), Path(folder) / "log"
        command = [sys.executable, "-m", "trident.launch.temporary"]
        with log.open("w", encoding="utf-8") as output:
            process = start_child(
                command, os.environ | own.as_environment(), cwd=CHECKOUT, stdout=output, stderr=output
            )
        try:
            _wait_until_ready(process, instance, log, wait)
            yield instance
        finally:
            _stop(process)


def _overrides(ports: Sequence[int], models: tuple[str, ...], data: Path, limit: float) -> dict[str, Any]:
    """Return the settings that differ from the user's: nothing is shared with other servers, nor their memory."""
    names = ("port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
    unset = ("public_url", "triton", "admin_key_file", "database_url", "pepper_file", "redis_url", "otlp_endpoint")
    return {
        **dict(zip(names, ports, strict=True)),
        **dict.fromkeys(unset),
        "host": "127.0.0.1",
        "workers": 1,
        "instances": (),
        "rate_limits": {},
        "models": models,
        "models_on_demand": False,
        "data": data,
        "max_memory_gb": min(limit, min(memory_limit(), psutil.virtual_memory().available) / 1e9),
        "drain_seconds": 0,
        "shutdown_delay": 0.0,
    }


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", instance: Instance, log: Path, wait: Callable[[], None]
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not (instance.is_running() and "serves OpenAI's API" in log.read_text(encoding="utf-8")):
        if process.poll() is not None or time.monotonic() > deadline:
            text = log.read_text(encoding="utf-8").strip()
            raise LaunchError(text.rpartition("trident: ")[2][-_LOG_CHARACTERS:] or "The server did not start")
        wait()
        time.sleep(_CHECK_SECONDS)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)


def _free_ports(count: int) -> list[int]:
    """Return `count` TCP ports that nothing uses on 127.0.0.1."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _main() -> None:
    from trident.launch.supervisor import run

    settings = load_settings()
    code = run(settings, load_settings, is_temporary=True)
    shutil.rmtree(settings.data, ignore_errors=True)  # the command may have been killed
    sys.exit(code)


if __name__ == "__main__":
    _main()
