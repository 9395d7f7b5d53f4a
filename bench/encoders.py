"""Benchmark of embeddings: Trident against infinity, sentence-transformers, onnxruntime and Triton by itself.

`make bench BENCH=encoders`. The model is all-MiniLM-L6-v2, except in one comparison, which uses bge-small-en-v1.5. In
each round, all contenders except Triton by itself run one after another. The ratios of their speeds are computed within
each round, because the load of other programs changes little within a round. A printed ratio is the median over the
rounds.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import orjson
from tokenizers import Tokenizer

from bench.clients import run_clients
from bench.contest import print_ratios
from bench.encoder_rivals import InProcess, infinity, published_weights, triton_only
from contract.paths import default_model_repository, latest_version
from tests.support.stack import running_stack

FLOAT, INT8, LONG = "all-minilm-l6-v2", "all-minilm-l6-v2-int8", "bge-small-en-v1.5"

Batches = list[list[str]]
# A function from batches of texts to the number of texts encoded per second.
Contender = Callable[[Batches], float]


class TextSource:
    """A source of random texts with an exact number of tokens. The tokens [CLS] and [SEP] count too."""

    def __init__(self) -> None:
        path = latest_version(default_model_repository() / FLOAT) / "tokenizer.json"
        vocabulary = Tokenizer.from_file(str(path)).get_vocab()
        self._words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)
        self._random = random.Random(1)  # noqa: S311

    def next_text(self, tokens: int) -> str:
        """Return a text of `tokens` tokens."""
        return " ".join(self._random.choices(self._words, k=tokens - 2))

    def batches(self, count: int, size: int, shortest: int, longest: int) -> Batches:
        """Return `count` batches of `size` texts, each of `shortest` to `longest` tokens."""
        return [[self.next_text(self._random.randint(shortest, longest)) for _ in range(size)] for _ in range(count)]


def over_http(port: int, path: str, model: str, clients: int) -> Contender:
    """Return a contender that sends each batch as one request, from `clients` concurrent clients."""

    def run(batches: Batches) -> float:
        bodies = [orjson.dumps({"model": model, "input": texts if len(texts) > 1 else texts[0]}) for texts in batches]
        rate = run_clients(port, path, bodies, clients)
        return rate.requests_per_second * len(batches[0])

    return run


def in_process(rival: InProcess) -> Contender:
    """Return a contender that encodes one batch after another in the rival's process."""
    return lambda batches: sum(map(len, batches)) / sum(rival.seconds(batches))


def compare(name: str, contenders: dict[str, Contender], batches: Callable[[], Batches], rounds: int) -> None:
    """Print each contender's median speed in texts per second, and the ratio of its speed to each rival's speed.

    `batches` returns new batches for each round.
    """
    speeds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds + 1):
        work = batches()
        for contender, run in contenders.items():
            speeds[contender].append(run(work))
    print(f"\n{name}")
    print_ratios(speeds, [contender for contender in speeds if not contender.startswith("stack")], "texts/s")


def short_text_latency(port: int, model: str, session: InProcess, source: TextSource, rounds: int) -> None:
    """Print the median time for a 16-token text through Trident and in a bare ONNX session, and the difference."""
    through, bare = [], []
    for _ in range(rounds):
        batches = source.batches(40, 1, 16, 16)
        bodies = [orjson.dumps({"model": model, "input": text}) for (text,) in batches]
        through.append(run_clients(port, "/v1/embeddings", bodies, 1).p50_ms)
        bare.append(statistics.median(session.seconds(batches)) * 1000)
    overhead = statistics.median(outer - inner for outer, inner in zip(through, bare, strict=True))
    outer, inner = statistics.median(through), statistics.median(bare)
    print(f"  {model:22} {outer:.1f} ms, bare session {inner:.1f} ms, overhead {overhead:.1f} ms", flush=True)


def cost_by_length(port: int, source: TextSource) -> None:
    """Print the cost per token at each text length, in microseconds. It must not jump where Trident splits a batch."""
    print("\nMicroseconds per token, batches of 32 texts of equal length")
    for model in (FLOAT, INT8):
        costs = []
        for length in (8, 16, 31, 32, 33, 64, 128, 192, 256):
            run = over_http(port, "/v1/embeddings", model, 1)
            speed = statistics.median(run(source.batches(3, 32, length, length)) for _ in range(3))
            costs.append(f"{length}: {1e6 / speed / length:.0f}")
        print(f"  {model:22} {', '.join(costs)}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    source, repository = TextSource(), default_model_repository()
    with ExitStack() as stack:
        settings = stack.enter_context(running_stack([FLOAT, INT8, LONG]))
        sessions = {name: InProcess("onnxruntime", latest_version(repository / name)) for name in (FLOAT, INT8, LONG)}
        for session in sessions.values():
            stack.callback(session.close)
        print("One text of 16 tokens, 1 client, p50")
        for name in (FLOAT, INT8):
            short_text_latency(settings.port, name, sessions[name], source, 3 * rounds)
        # infinity starts only after the measurement above, because its threads use CPU even when idle.
        infinity_port = stack.enter_context(infinity(published_weights(FLOAT)))
        torch = InProcess("sentence_transformers", published_weights(FLOAT))
        stack.callback(torch.close)

        def contenders(clients: int) -> dict[str, Contender]:
            return {
                "stack": over_http(settings.port, "/v1/embeddings", FLOAT, clients),
                "stack int8": over_http(settings.port, "/v1/embeddings", INT8, clients),
                "infinity": over_http(infinity_port, "/embeddings", "m", clients),
            }

        bare = {
            "sentence-transformers": in_process(torch),
            "onnxruntime": in_process(sessions[FLOAT]),
            "onnxruntime int8": in_process(sessions[INT8]),
        }
        for clients in (1, 16, 64):
            count = 200 if clients == 1 else 800
            compared = contenders(clients) | (bare if clients == 1 else {})
            compare(f"1 × 16 tokens, {clients} clients", compared, partial(source.batches, count, 1, 16, 16), rounds)
            for name in (FLOAT, INT8):
                short_texts = [source.next_text(16) for _ in range(50)]
                speed = triton_only(name, settings.triton_grpc_port, short_texts, clients)
                print(f"  Triton by itself, {name}: {speed:.0f} texts/s", flush=True)
        batches_128, batches_8_to_256 = partial(source.batches, 4, 32, 128, 128), partial(source.batches, 4, 32, 8, 256)
        compare("32 × 128 tokens, 1 client", contenders(1) | bare, batches_128, rounds)
        compare("32 × 128 tokens, 4 clients", contenders(4), partial(source.batches, 8, 32, 128, 128), rounds)
        compare("32 × 8 to 256 tokens, 1 client", contenders(1) | bare, batches_8_to_256, rounds)
        batches_8_to_512 = partial(source.batches, 4, 32, 8, 512)
        long_contenders = {
            "stack": over_http(settings.port, "/v1/embeddings", LONG, 1),
            "onnxruntime": in_process(sessions[LONG]),
        }
        compare(f"{LONG}, 32 × 8 to 512 tokens, 1 client", long_contenders, batches_8_to_512, rounds)
        cost_by_length(settings.port, source)


if __name__ == "__main__":
    main()
