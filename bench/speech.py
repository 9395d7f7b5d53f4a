"""Benchmark of speech synthesis: Trident against the Python package hibari without a server, with one voice and text.

`make bench BENCH=speech` prints how many seconds of speech each contender generates per second. The contenders are
hibari synthesizing one text at a time, hibari synthesizing as many texts at once as there are cores, and Trident with 1
and with 4 clients. Trident is measured with PCM, which is hibari's own output, and with MP3. The contenders take turns
in each round. The benchmark divides each contender's speed by the speed of hibari with one text at a time in the same
round. It prints the median of these ratios, and Trident's time to first audio.
"""

import argparse
import http.client
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from bench.clients import run_clients
from bench.contest import Rival, Work, print_ratios
from contract.paths import default_model_repository, latest_version
from tests.support.stack import running_stack

MODEL = "hibari"
_TEXT = """The old lighthouse stood at the edge of the cliff. She opened the letter and began to read it slowly.
A cold wind was blowing from the north all day. The children played in the garden until it was dark.
He bought a loaf of bread and some cheese at the market. Nobody knew where the old man had come from.
The train to London leaves at seven in the morning. It takes a long time to learn how to play the piano.
There was a large map of the world on the wall. The doctor told him to drink more water and to sleep longer."""
_CORES = os.cpu_count() or 1


def _bare(path: Path) -> Work:
    """Return a function that takes (text, count) and synthesizes the text `count` times, on up to one thread per core.

    The function returns the elapsed seconds, and the duration of the audio of one synthesis in seconds.
    """
    from hibari import Hibari

    speaker = Hibari(model=str(path))

    def speak(text: str) -> float:
        samples = sum(len(sentence) for sentence in speaker.stream(text, seed=0))
        return samples / float(speaker.sample_rate)

    pool = ThreadPoolExecutor(_CORES)

    def spoken(request: tuple[str, int]) -> tuple[float, float]:
        text, count = request
        started = time.perf_counter()
        seconds = list(pool.map(speak, [text] * count))
        return time.perf_counter() - started, seconds[0]

    return spoken


def _first_audio_time(port: int, body: bytes) -> float:
    """Return the milliseconds from a request to the first byte of its audio."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read(1)
    elapsed = time.perf_counter() - started
    response.read()
    connection.close()
    return elapsed * 1000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    path = latest_version(default_model_repository() / MODEL) / "heart.onnx"
    contenders = [(audio_format, clients) for audio_format in ("pcm", "mp3") for clients in (1, 4)]
    speeds: dict[str, list[float]] = {}
    first: list[float] = []
    with running_stack([MODEL]) as stack, Rival(_bare, path) as bare:
        for _ in range(rounds + 1):
            for name, times in (("hibari", 1), ("hibari, all cores", _CORES)):
                elapsed, seconds = bare.call((_TEXT, times))
                speeds.setdefault(name, []).append(seconds * times / elapsed)
            for audio_format, clients in contenders:
                body = orjson.dumps({"input": _TEXT, "voice": "alloy", "response_format": audio_format})
                rate = run_clients(stack.port, "/v1/audio/speech", [body] * clients, clients)
                label = f"{audio_format}, {clients} client{'s' * (clients > 1)}"
                speeds.setdefault(label, []).append(rate.requests_per_second * seconds)
                first += [_first_audio_time(stack.port, body)] if clients == 1 else []
    print_ratios(speeds, ["hibari"], "× real time")
    print(f"time to first audio of ten sentences: {statistics.median(first[2:]):.0f} ms at 1 client (target: ≤ 150 ms)")


if __name__ == "__main__":
    main()
