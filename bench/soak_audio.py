"""Soak test that measures the memory growth of speech and transcription: `python -m bench.soak_audio`.

Sends 500 requests from 4 clients, alternately for speech (in all formats) and transcription. In a fifth of the
requests, the client disconnects early. Prints the memory use of each process after the first 100 requests and at the
end.
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

from bench.soak import memory_by_process, print_growth
from tests.support.recordings import AUDIOEVAL, package_files
from tests.support.stack import running_stack

_MODELS = ["hibari", "whisper-base"]
_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
_CLIENTS, _WARMUP = 4, 100
_WORDS = "fox bear wood river stone king moon bread wolf snow road house apple night sea fire bird ship lamp song"


class Soak:
    """Sends speech and transcription requests and counts their outcomes."""

    def __init__(self, port: int, clips: list[Path]):
        self._port, self._clips = port, clips
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def request(self, index: int) -> None:
        """Send one request and count its outcome. If the index is a multiple of 5, the client disconnects early."""
        rng = random.Random(index)  # noqa: S311
        path, body, content_type = self._transcription(rng) if index % 2 else self._speech(rng)
        outcome = self._send(path, body, content_type, rng.random() if index % 5 == 0 else None)
        with self._lock:
            self.outcomes[outcome] += 1

    def _speech(self, rng: random.Random) -> tuple[str, bytes, str]:
        sentences = [" ".join(rng.choices(_WORDS.split(), k=rng.randint(3, 20))) for _ in range(rng.randint(1, 30))]
        body = {"input": ". ".join(sentences) + ".", "response_format": rng.choice(_FORMATS)}
        return "/v1/audio/speech", orjson.dumps(body), "application/json"

    def _transcription(self, rng: random.Random) -> tuple[str, bytes, str]:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = head + rng.choice(self._clips).read_bytes() + b"\r\n--x--\r\n"
        return "/v1/audio/transcriptions", body, "multipart/form-data; boundary=x"

    def _send(self, path: str, body: bytes, content_type: str, disconnect_after: float | None) -> str:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=120 if disconnect_after is None else 0.01 + disconnect_after
        )
        try:
            connection.request("POST", path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            content = response.read(100) if disconnect_after else response.read()
        except TimeoutError:
            return "disconnected while waiting"
        finally:
            connection.close()
        return (
            ("completed" if disconnect_after is None else "disconnected mid-response")
            if response.status == 200
            else f"FAILED: {content[:200]!r}"
        )


def main() -> None:
    """Run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    total = parser.parse_args().requests
    clips = sorted(package_files(AUDIOEVAL).glob("*/*.wav"))
    with running_stack(_MODELS) as settings, ThreadPoolExecutor(_CLIENTS) as pool:
        soak = Soak(settings.port, clips)
        list(pool.map(soak.request, range(_WARMUP)))
        time.sleep(3)
        before = memory_by_process(settings)
        list(pool.map(soak.request, range(_WARMUP, total)))
        time.sleep(3)
        print(f"{total} requests: {dict(soak.outcomes)}")
        print_growth(before, memory_by_process(settings), _WARMUP, total)


if __name__ == "__main__":
    main()
