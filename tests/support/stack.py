"""Runs the complete Trident stack, as `make serve` does, on free ports."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.paths import default_model_repository, latest_version
from frontend.settings import Settings

_START_SECONDS = 120


def free_ports(count: int) -> list[int]:
    """Return `count` TCP ports that nothing uses on 127.0.0.1."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def running_stack(
    models: Sequence[str], *flags: str, triton_of: Settings | None = None, engine: str = "openvino"
) -> Iterator[Settings]:
    """Run Trident with these models and flags until the block ends; yield settings with Trident's ports and models.

    Chat models published as GGUF run on `engine`, on every machine.

    If `triton_of` has the settings of a running Trident, use the Triton of that instance instead of starting another.
    Raises RuntimeError with the output if Trident exits or is not ready within 120 seconds.
    """
    port, http, grpc, metrics = free_ports(4)
    if triton_of:
        http, flags = triton_of.triton_http_port, ("--triton", triton_of.triton_address, *flags)
    settings = Settings(
        port=port, triton_http_port=http, triton_grpc_port=grpc, triton_metrics_port=metrics, models=tuple(models)
    )
    command = [sys.executable, "-m", "trident", "serve", *models, "--port", str(port), "--engine", engine]
    command += ["--triton-http-port", str(http), "--triton-grpc-port", str(grpc), "--triton-metrics-port", str(metrics)]
    with tempfile.NamedTemporaryFile("w+", suffix=".log", encoding="utf-8") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait(process, port, Path(output.name))
            yield settings
        finally:
            process.terminate()
            process.wait(30)


def read_config(model: Path) -> model_config_pb2.ModelConfig:
    """Return the parsed config.pbtxt in the folder of an exported model."""
    return text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def make_repository(folder: Path, model: str, parameters: Mapping[str, str]) -> Path:
    """Put an exported model into `folder`, with these values in its parameters; return `folder`, a model repository."""
    source, target = default_model_repository() / model, folder / model
    target.mkdir(parents=True)
    (target / "1").symlink_to(latest_version(source))
    config = read_config(source)
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    (target / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    return folder


def _wait(process: "subprocess.Popen[bytes]", port: int, output: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if "serves OpenAI's API" in output.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"Trident did not start on port {port}:\n{output.read_text(encoding='utf-8')}")
