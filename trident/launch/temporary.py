"""A Trident that a command starts for its own requests and stops afterwards: `python -m trident.launch.temporary`."""

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

from contract.paths import CHECKOUT
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

    The other settings apply as far as they are about models. `wait` is called again and again while it starts. The
    instance ends with this process, also if this process is killed. Raises LaunchError if it does not start.
    """
    port, http, grpc, metrics = _free_ports(4)
    with tempfile.TemporaryDirectory(prefix="trident-") as folder:
        own = replace(
            Settings(cache=settings.cache, model_repository=settings.model_repository),
            port=port,
            triton_http_port=http,
            triton_grpc_port=grpc,
            triton_metrics_port=metrics,
            models=tuple(models),
            data=Path(folder),
            drain_seconds=0,
            **{name: getattr(settings, name) for name in _KEPT},
        )
        instance, log = Instance(own.run_folder), Path(folder) / "log"
        command = [sys.executable, "-m", "trident.launch.temporary"]
        with log.open("w", encoding="utf-8") as output:
            process = start_child(command, _environment(own), cwd=CHECKOUT, stdout=output, stderr=output)
        try:
            _wait_until_ready(process, instance, log, wait)
            yield instance
        finally:
            _stop(process)


_KEPT = ("engine", "kv_cache_gb", "context_length", "max_num_seqs", "max_memory_gb", "max_upload_bytes", "aliases")


def _environment(settings: Settings) -> dict[str, str]:
    return os.environ | settings.as_environment()


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
    shutil.rmtree(settings.run_folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    _main()
