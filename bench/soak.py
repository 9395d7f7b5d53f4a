"""Soak test of chat, which looks for memory growth and for requests left pending: `python -m bench.soak`.

Sends 2,000 chats from 16 clients, and streams half of the responses. In a third of the chats, the client disconnects if
no data arrives within a random time of up to about a second. Half of the clients in this third disconnect after the
first 200 bytes, even if the response starts in time. Prints the memory of each process after the first 200 chats and at
the end. Prompts are long and all different, so that the first 200 chats fill the KV cache, which should grow to its
configured size and no further.
"""

import argparse
import http.client
import random
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import orjson
import psutil

from frontend.settings import Settings
from tests.support.stack import running_stack

_MODEL = "smollm2-135m"
_CLIENTS = 16
_WARMUP = 200
_VOCABULARY = "fox bear wood river stone king moon bread wolf snow road house apple night sea fire bird ship lamp song"


class Soak:
    """Sends chat requests and counts their outcomes."""

    def __init__(self, port: int):
        self._port = port
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def request(self, index: int) -> None:
        """Send one chat and count its outcome. If the index is a multiple of 3, the client may disconnect early."""
        rng = random.Random(index)  # noqa: S311
        outcome = self._send(rng, index, disconnects=index % 3 == 0)
        with self._lock:
            self.outcomes[outcome] += 1

    def _send(self, rng: random.Random, index: int, disconnects: bool) -> str:
        stream = rng.random() < 0.5
        text = f"{index}: " + " ".join(rng.choices(_VOCABULARY.split(), k=250))
        body = {"model": _MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": rng.randint(5, 40)}
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=0.01 + rng.random() if disconnects else 120
        )
        try:
            connection.request("POST", "/v1/chat/completions", orjson.dumps(body | {"stream": stream}))
            response = connection.getresponse()
            if disconnects and rng.random() < 0.5:
                response.read(200)
                return "disconnected mid-response"
            content = response.read()
        except TimeoutError:
            return "disconnected while waiting"
        finally:
            connection.close()
        complete = content.endswith(b"data: [DONE]\n\n") if stream else b'"finish_reason":"' in content
        return "completed" if response.status == 200 and complete else f"FAILED: {response.status} {content[-200:]!r}"


def memory_by_process(settings: Settings) -> dict[str, float]:
    """Return the resident memory of each process of an instance, in MB."""
    launcher = psutil.Process(int(settings.pid_file.read_text(encoding="utf-8")))
    megabytes = {"launcher": launcher.memory_info().rss / 1e6}
    for child in launcher.children(recursive=True):
        command = " ".join(child.cmdline()[:3])
        marks = (
            ("grammar.compiler", "grammar compiler"),
            ("engine.process", "engine"),
            ("llamacpp.process", "engine"),
            ("grammar_trial", "grammar trial"),
            ("/smollm2-135m/", "backend, chat"),
            ("/whisper-base/", "backend, transcription"),
            ("/hibari/", "backend, speech"),
            ("/u2netp/", "backend, background removal"),
            ("tritonserver", "triton"),
            ("frontend.server", "frontend worker" if child.ppid() != launcher.pid else "frontend master"),
        )
        name = next((name for mark, name in marks if mark in command), command)
        megabytes[name] = child.memory_info().rss / 1e6
    return megabytes


def print_growth(before: dict[str, float], after: dict[str, float], warm: int, total: int) -> None:
    """Print the memory of each process after `warm` and after `total` requests, and the ratio of the two."""
    for name, megabytes in after.items():
        ratio = megabytes / before[name]
        print(f"{name:24} {before[name]:6.0f} MB after {warm}, {megabytes:6.0f} MB after {total}: x {ratio:.3f}")


def pending_requests(settings: Settings) -> float:
    """Return the number of requests still running or waiting in the engine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.triton_metrics_port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    names = ("trident_generation_running{", "trident_generation_waiting{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


def main() -> None:
    """Run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--engine", default="openvino", choices=("openvino", "llamacpp"))
    args = parser.parse_args()
    total = args.requests
    with running_stack([_MODEL], engine=args.engine) as settings, ThreadPoolExecutor(_CLIENTS) as pool:
        soak = Soak(settings.port)
        list(pool.map(soak.request, range(_WARMUP)))
        time.sleep(3)
        before = memory_by_process(settings)
        started = time.monotonic()
        list(pool.map(soak.request, range(_WARMUP, total)))
        print(f"{total - _WARMUP} requests in {time.monotonic() - started:.0f} s: {dict(soak.outcomes)}")
        time.sleep(3)
        print_growth(before, memory_by_process(settings), _WARMUP, total)
        print(f"pending at the end: {pending_requests(settings):.0f}")


if __name__ == "__main__":
    main()
