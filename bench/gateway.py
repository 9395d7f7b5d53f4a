"""Benchmark of the frontend as a gateway.

`make bench BENCH=gateway` makes four comparisons; in each, the contenders take turns:
- Cost: the frontend, and the frontend of an earlier commit (`--before`) at the same Triton: embeddings of one text, and
  tokens of 16 streamed chats.
- LiteLLM: embeddings through LiteLLM's proxy in front of this frontend, and without it. What each adds to the median
  latency is the difference to the server behind it.
- Two Tritons: tokens of 16 streamed chats with two Tritons on this machine, and with one.
- Counters: the metrics after `--requests` requests, and what the clients have counted.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from bench.clients import run_clients
from contract.paths import CHECKOUT
from frontend.settings import Settings
from frontend.triton.http_client import Inference, UnaryClient
from tests.support.live import MODEL, url, wait_until
from tests.support.load import chat_body, run_streams
from tests.support.stack import free_ports
from tests.support.tritons import Triton, running_tritons

EMBEDDING = "bge-small-en-v1.5"
TEXT = "How far is the moon from the earth?"
_BODY = orjson.dumps({"model": EMBEDDING, "input": TEXT})
_CLIENTS, _STREAMS, _TOKENS = 16, 16, 100


@contextlib.contextmanager
def _running(command: Sequence[str], ready: str, **options: object) -> Iterator[None]:
    """Run a server until the block ends; it has started when the URL `ready` responds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
    try:
        wait_until(lambda: process.poll() is not None or _responds(ready), 120, ready)
        assert process.poll() is None, f"{command[0]} has exited"
        yield
    finally:
        process.terminate()
        process.wait(30)


def _responds(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running_frontend(tritons: Sequence[Triton], code: Path = CHECKOUT, **further: Any) -> Iterator[Settings]:
    """Run the frontend of the checkout `code` with these Tritons, and further settings."""
    with tempfile.TemporaryDirectory() as cache:
        first = tritons[0].settings
        address = {"triton": f"127.0.0.1:{first.triton_grpc_port}", "triton_http_port": first.triton_http_port}
        address["triton_metrics_port"] = first.triton_metrics_port
        several = {"instances": tuple(triton.entry() for triton in tritons)}
        options = several if len(tritons) > 1 else address
        further = {"data": Path(cache) / "data"} | further
        settings = Settings(port=free_ports(1)[0], cache=Path(cache), **options, **further)
        settings.run_folder.mkdir(parents=True)
        environment = os.environ | settings.as_environment()
        with _running([sys.executable, "-m", "frontend.server"], url(settings, "/health"), cwd=code, env=environment):
            yield settings


@contextlib.contextmanager
def _litellm(frontend: Settings) -> Iterator[int]:
    """Run LiteLLM's proxy in front of a frontend; yield its port."""
    port = free_ports(1)[0]
    parameters = {"model": f"openai/{EMBEDDING}", "api_base": url(frontend, "/v1"), "api_key": "unused"}
    with tempfile.NamedTemporaryFile("wb", suffix=".yaml") as file:
        file.write(orjson.dumps({"model_list": [{"model_name": EMBEDDING, "litellm_params": parameters}]}))
        file.flush()
        program = str(CHECKOUT / ".venv-litellm" / "bin" / "litellm")
        command = [program, "--config", file.name, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        environment = os.environ | {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
        with _running(command, f"http://127.0.0.1:{port}/health/liveliness", env=environment):
            yield port


def take_turns(rounds: int, measures: Sequence[Callable[[], float]]) -> list[list[float]]:
    """Measure in turns, after a round that does not count; return the results of each round."""
    return [[measure() for measure in measures] for _ in range(rounds + 1)][1:]


def _rate(port: int, count: int = 1500) -> float:
    return run_clients(port, "/v1/embeddings", [_BODY] * count, _CLIENTS).requests_per_second


def _latency(port: int) -> float:
    return run_clients(port, "/v1/embeddings", [_BODY] * 300, 1).p50_ms


def _direct_latency(triton: Triton) -> float:
    """Return the median latency of requests to Triton itself, in milliseconds."""
    client, times = UnaryClient("127.0.0.1", triton.settings.triton_http_port), []
    for _ in range(300):
        started = time.perf_counter()
        Inference(client, EMBEDDING, {"text": [TEXT.encode()]}, request_id="", timeout=30, parameters={}).result()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def _tokens(port: int) -> float:
    return run_streams(
        port, [chat_body(MODEL, f"Tell me story {i}.", _TOKENS) for i in range(_STREAMS)]
    ).tokens_per_second


def _compare(name: str, unit: str, rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
    report(name, unit, take_turns(rounds, [ours, theirs]))


def report(name: str, unit: str, results: Sequence[Sequence[float]]) -> None:
    """Print the medians of two contenders, and the median of their ratios in each round."""
    ours, theirs = (statistics.median(column) for column in zip(*results, strict=True))
    ratio = statistics.median(first / second for first, second in results)
    print(f"  {name}: {ours:.1f} and {theirs:.1f} {unit}, ratio {ratio:.3f}", flush=True)


def cost(triton: Triton, before: str, rounds: int) -> None:
    """Compare with the frontend of an earlier commit."""
    print(f"Cost: this frontend, and the frontend of commit {before}")
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "before"
        worktree = ["git", "-C", str(CHECKOUT), "worktree"]
        subprocess.run([*worktree, "add", "--quiet", "--detach", code, before], check=True)
        try:
            with running_frontend([triton]) as ours, running_frontend([triton], code) as theirs:
                for name, unit, measure in (
                    ("embeddings, 16 clients", "requests/s", _rate),
                    ("embeddings, median of 1 client", "ms", _latency),
                    ("16 streamed chats", "tokens/s", _tokens),
                ):
                    _compare(name, unit, rounds, partial(measure, ours.port), partial(measure, theirs.port))
        finally:
            subprocess.run([*worktree, "remove", "--force", code], check=True)


def against_litellm(triton: Triton, rounds: int) -> None:
    """Compare with LiteLLM's proxy in front of this frontend."""
    print("LiteLLM: this frontend, and LiteLLM's proxy in front of it")
    with running_frontend([triton]) as ours, _litellm(ours) as port:
        rate = partial(_rate, ours.port, 1000)
        _compare("embeddings, 16 clients", "requests/s", rounds, rate, partial(_rate, port, 300))
        latencies = take_turns(
            rounds,
            [
                partial(_direct_latency, triton),
                partial(_latency, ours.port),
                partial(_latency, port),
            ],
        )
        added = [(frontend - engine, proxy - frontend) for engine, frontend, proxy in latencies]
        report("added to the median of 1 client", "ms", added)


def two_tritons(tritons: Sequence[Triton], rounds: int) -> None:
    """Compare two Tritons with one."""
    print("Two Tritons, and one")
    with running_frontend(tritons) as both, running_frontend(tritons[:1]) as one:
        _compare("16 streamed chats", "tokens/s", rounds, partial(_tokens, both.port), partial(_tokens, one.port))


def counters(tritons: Sequence[Triton], requests: int) -> None:
    """Compare the metrics with what the clients have counted. Raises AssertionError if they differ."""
    print(f"Counters after {requests} requests")
    with running_frontend(tritons) as frontend:
        request = urllib.request.Request(url(frontend, "/v1/embeddings"), _BODY, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            tokens = orjson.loads(response.read())["usage"]["prompt_tokens"]
        run_clients(frontend.port, "/v1/embeddings", [_BODY] * (requests - 1), _CLIENTS, timeout=3600)
        with urllib.request.urlopen(url(frontend, "/metrics"), timeout=30) as response:
            lines = response.read().decode().splitlines()
    for name, expected in (
        ("trident_requests_total{", requests),
        ("trident_instance_requests_total{", requests),
        ("trident_balancer_choices_total{", requests),
        ("trident_tokens_total{", requests * tokens),
        ("trident_request_bytes_total{", requests * len(_BODY)),
    ):
        counted = sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
        print(f"  {name.rstrip('{')}: {counted:.0f}, the clients counted {expected}", flush=True)
        assert counted == expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--before", default="4f7d876", help="commit to compare with")
    options = parser.parse_args()
    with running_tritons(1, [MODEL, EMBEDDING]) as (triton,):
        cost(triton, options.before, options.rounds)
        against_litellm(triton, options.rounds)
    with running_tritons(2, [MODEL, EMBEDDING]) as tritons:
        two_tritons(tritons, options.rounds)
        counters(tritons, options.requests)


if __name__ == "__main__":
    main()
