"""Benchmark of GGUF models: Trident on llama.cpp against the bare engine and xllamacpp's server.

Run it with `python -m bench.gguf`. All contenders read the same published file. The bare engine is a loop that only
computes batches and takes the most likely token. xllamacpp is llama.cpp's server in a Python package, whose libraries
are built for AVX2. With `--neighbor`, another process uses one core all the time.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process
from pathlib import Path

import numpy as np

from bench.chat import PromptSource
from bench.contest import Rival, Work, print_ratios
from bench.rivals import llama_server
from contract.paths import default_model_repository, latest_version
from export.local_names import free_name
from tests.support.gguf_files import gguf_file
from tests.support.load import Load, chat_body, run_streams
from tests.support.stack import read_config, running_stack

_MAX_BATCH = 512


def bare_engine(model_folder: Path) -> Work:
    """Return a function that generates greedy answers to texts of equal length without a server, a sampler or a cache.

    The function's input is (texts, max_tokens), and its result is a Load.
    """
    from backends.common.llamacpp.context import LlamaContext, Piece
    from backends.generation.prompt.chat_prompt import ChatPrompt

    parameters = {key: value.string_value for key, value in read_config(model_folder).parameters.items()}
    folder = latest_version(model_folder)
    context = LlamaContext(
        folder,
        cells=int(parameters["cache_tokens"]),
        max_batch=_MAX_BATCH,
        max_running=int(parameters["max_num_seqs"]),
        threads=len(os.sched_getaffinity(0)),
    )
    prompt = ChatPrompt(folder, int(parameters["context_length"]))

    def generate(request: tuple[list[str], int]) -> Load:
        texts, max_tokens = request
        prompts = [prompt.encode([{"role": "user", "content": text}]) for text in texts]
        started, first = time.perf_counter(), []
        logits = []
        for sequence, ids in enumerate(prompts):
            logits.append(int(context.decode([Piece(sequence, 0, ids, 1)])[0].argmax()))
            first.append(time.perf_counter() - started)
        for step in range(max_tokens - 1):
            pieces = [Piece(i, len(prompts[i]) + step, [token], 1) for i, token in enumerate(logits)]
            logits = np.argmax(context.decode(pieces), axis=1).tolist()
        elapsed, tokens = time.perf_counter() - started, max_tokens * len(texts)
        for sequence in range(len(texts)):
            context.remove(sequence)
        return Load(tokens / elapsed, statistics.median(first) * 1000, tokens)

    return generate


def compare(port: int, model: str, file: Path, streams: list[int], rounds: int, tokens: int) -> None:
    """Print the speeds of Trident, the bare engine and xllamacpp at each number of streams, and the ratios."""
    prompts = PromptSource()
    with Rival(bare_engine, default_model_repository() / model) as bare:
        for count in streams:
            results: dict[str, list[float]] = {"stack": [], "bare": [], "xllamacpp": []}
            with llama_server(file, count, 18080) as llama_port:
                for _ in range(rounds + 1):
                    results["bare"].append(bare.call((prompts.next_prompts(count), tokens)).tokens_per_second)
                    for name, to, of in (("stack", port, model), ("xllamacpp", llama_port, "m")):
                        bodies = [chat_body(of, text, tokens) for text in prompts.next_prompts(count)]
                        results[name].append(run_streams(to, bodies).tokens_per_second)
            print(f"{count} streams")
            print_ratios(results, ["bare", "xllamacpp"], "tokens/s")


def known_prefix(port: int, model: str, rounds: int) -> None:
    """Print the time to the first token of a prompt of about 300 tokens that an earlier request began with."""
    text = " ".join(f"Rule {i}: answer politely and briefly." for i in range(30))
    bodies = [chat_body(model, f"{text} Question {i}", 4) for i in range(rounds + 1)]
    times = [run_streams(port, [body]).first_token_ms for body in bodies]
    print(f"first token of a known prompt: {statistics.median(times[1:]):.0f} ms (new: {times[0]:.0f} ms)")


def _spin() -> None:
    while True:
        pass


@contextmanager
def _neighbor(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    process = Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="catalog model that is published as GGUF")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--neighbor", action="store_true", help="keep one core busy with another process")
    args = parser.parse_args()
    file = gguf_file(args.model)
    model = free_name(file.stem, "gguf")
    with running_stack([str(file)], engine="llamacpp") as stack, _neighbor(args.neighbor):
        known_prefix(stack.port, model, args.rounds)
        compare(stack.port, model, file, args.streams, args.rounds, args.tokens)


if __name__ == "__main__":
    main()
