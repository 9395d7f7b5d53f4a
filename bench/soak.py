"""Memory and leftovers under long use: `python -m bench.soak`.

Sends 2,000 chats from 16 clients, plain and streamed, a third of them cut off at random by a client that leaves, and
prints each process's memory after the first 200 and at the end. Prompts are long and never alike, so that the first 200
fill the KV cache: it is meant to grow to its configured size and no further.
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
_WARM = 200
_VOCABULARY = "fox bear wood river stone king moon bread wolf snow road house apple night sea fire bird ship lamp song"


class Soak:
    """Counts what came of the requests."""

    def __init__(self, port: int):
        self._port = port
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def request(self, number: int) -> None:
        """Send one chat; leave early if its number says so."""
        dice = random.Random(number)  # noqa: S311
        outcome = self._send(dice, number, cut=number % 3 == 0)
        with self._lock:
            self.outcomes[outcome] += 1

    def _send(self, dice: random.Random, number: int, cut: bool) -> str:
        stream = dice.random() < 0.5
        text = f"{number}: " + " ".join(dice.choices(_VOCABULARY.split(), k=250))
        body = {"model": _MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": dice.randint(5, 40)}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=0.01 + dice.random() if cut else 120)
        try:
            connection.request("POST", "/v1/chat/completions", orjson.dumps(body | {"stream": stream}))
            response = connection.getresponse()
            if cut and dice.random() < 0.5:
                response.read(200)
                return "cut off in the answer"
            content = response.read()
        except TimeoutError:
            return "cut off while waiting"
        finally:
            connection.close()
        whole = content.endswith(b"data: [DONE]\n\n") if stream else b'"finish_reason":"' in content
        return "answered" if response.status == 200 and whole else f"WRONG: {response.status} {content[-200:]!r}"


def memory(settings: Settings) -> dict[str, float]:
    """Return resident megabytes by process."""
    launcher = psutil.Process(int(settings.pid_file.read_text(encoding="utf-8")))
    found = {"launcher": launcher.memory_info().rss / 1e6}
    for child in launcher.children(recursive=True):
        command = " ".join(child.cmdline()[:3])
        marks = (
            ("grammar.compiler", "grammar compiler"),
            ("engine.process", "engine"),
            ("/smollm2-135m/", "backend, chat"),
            ("/whisper-base/", "backend, transcription"),
            ("/hibari/", "backend, speech"),
            ("/u2netp/", "backend, background removal"),
            ("tritonserver", "triton"),
            ("frontend.server", "frontend worker" if child.ppid() != launcher.pid else "frontend master"),
        )
        name = next((name for mark, name in marks if mark in command), command)
        found[name] = child.memory_info().rss / 1e6
    return found


def print_growth(before: dict[str, float], after: dict[str, float], warm: int, total: int) -> None:
    """Print what each process had after `warm` requests, and has after `total`."""
    for name, megabytes in after.items():
        ratio = megabytes / before[name]
        print(f"{name:24} {before[name]:6.0f} MB after {warm}, {megabytes:6.0f} MB after {total}: x {ratio:.3f}")


def pending(settings: Settings) -> float:
    """Return the requests that the engine still has."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.triton_metrics_port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    names = ("trident_generation_running{", "trident_generation_waiting{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    total = parser.parse_args().requests
    with running_stack([_MODEL]) as settings, ThreadPoolExecutor(_CLIENTS) as pool:
        soak = Soak(settings.port)
        list(pool.map(soak.request, range(_WARM)))
        time.sleep(3)
        before = memory(settings)
        started = time.monotonic()
        list(pool.map(soak.request, range(_WARM, total)))
        print(f"{total - _WARM} requests in {time.monotonic() - started:.0f} s: {dict(soak.outcomes)}")
        time.sleep(3)
        print_growth(before, memory(settings), _WARM, total)
        print(f"pending at the end: {pending(settings):.0f}")


if __name__ == "__main__":
    main()
