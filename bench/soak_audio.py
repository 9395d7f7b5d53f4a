"""Memory under long use of speech and transcription: `python -m bench.soak_audio`.

Sends 500 requests from 4 clients, by turns a text to speak (in every format) and a recording to write down, a fifth of
them cut off by a client that leaves, and prints each process's memory after the first 100 and at the end.
"""

import argparse
import http.client
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from bench.soak import memory, print_growth
from tests.support.recordings import AUDIOEVAL, package_files
from tests.support.stack import running_stack

_MODELS = ["hibari", "whisper-base"]
_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
_CLIENTS, _WARM = 4, 100
_WORDS = "fox bear wood river stone king moon bread wolf snow road house apple night sea fire bird ship lamp song"


class Soak:
    """Counts what came of the requests."""

    def __init__(self, port: int, clips: list[Path]):
        self._port, self._clips = port, clips
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def request(self, number: int) -> None:
        """Send one request; leave early if its number says so."""
        dice = random.Random(number)  # noqa: S311
        path, body, kind = self._transcription(dice) if number % 2 else self._speech(dice)
        outcome = self._send(path, body, kind, dice.random() if number % 5 == 0 else None)
        with self._lock:
            self.outcomes[outcome] += 1

    def _speech(self, dice: random.Random) -> tuple[str, bytes, str]:
        sentences = [" ".join(dice.choices(_WORDS.split(), k=dice.randint(3, 20))) for _ in range(dice.randint(1, 30))]
        body = {"input": ". ".join(sentences) + ".", "response_format": dice.choice(_FORMATS)}
        return "/v1/audio/speech", orjson.dumps(body), "application/json"

    def _transcription(self, dice: random.Random) -> tuple[str, bytes, str]:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = head + dice.choice(self._clips).read_bytes() + b"\r\n--x--\r\n"
        return "/v1/audio/transcriptions", body, "multipart/form-data; boundary=x"

    def _send(self, path: str, body: bytes, kind: str, leave: float | None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120 if leave is None else 0.01 + leave)
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            response = connection.getresponse()
            content = response.read(100) if leave else response.read()
        except TimeoutError:
            return "cut off while waiting"
        finally:
            connection.close()
        return ("answered" if leave is None else "cut off") if response.status == 200 else f"WRONG: {content[:200]!r}"


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    total = parser.parse_args().requests
    clips = sorted(package_files(AUDIOEVAL).glob("*/*.wav"))
    with running_stack(_MODELS) as settings, ThreadPoolExecutor(_CLIENTS) as pool:
        soak = Soak(settings.port, clips)
        list(pool.map(soak.request, range(_WARM)))
        time.sleep(3)
        before = memory(settings)
        list(pool.map(soak.request, range(_WARM, total)))
        time.sleep(3)
        print(f"{total} requests: {dict(soak.outcomes)}")
        print_growth(before, memory(settings), _WARM, total)


if __name__ == "__main__":
    main()
