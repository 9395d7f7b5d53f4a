"""Mixed load of many clients, which record what became of each request."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

OK, BROKEN_OFF = "ok", "broken off"


@dataclass
class Traffic:
    """The outcomes of the requests by kind: `ok`, `broken off` for a stream that ended early, or what was seen.

    A stream of text that ends early must end with an error event. A stream of audio has no place for one.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, kind: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self.outcomes.setdefault(kind, Counter())[outcome] += 1
            self.slowest[kind] = max(seconds, self.slowest.get(kind, 0.0))

    def failed(self) -> dict[str, Counter[str]]:
        """Return the outcomes of requests that were neither answered nor broken off after their first output."""
        failed = {
            kind: Counter({outcome: count for outcome, count in counts.items() if outcome not in (OK, BROKEN_OFF)})
            for kind, counts in self.outcomes.items()
        }
        return {kind: counts for kind, counts in failed.items() if counts}

    def count(self, outcome: str) -> int:
        """Return how many requests had this outcome."""
        return sum(counts[outcome] for counts in self.outcomes.values())


Send = Callable[[], str]
_WAV_HEADER_BYTES = 44


def chat(base: str, model: str, stream: bool, tokens: int = 40, key: str = "") -> Send:
    """Return a function that sends a chat request and returns its outcome."""
    body = {"model": model, "messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": tokens}

    def send() -> str:
        response = requests.post(
            f"{base}/v1/chat/completions",
            json=body | {"stream": stream},
            headers=_headers(key),
            stream=stream,
            timeout=90,
        )
        if response.status_code != 200:
            return f"{response.status_code} {response.text[:200]}"
        if not stream:
            return OK if response.json()["choices"][0]["finish_reason"] else response.text[:200]
        text = b"".join(response.iter_content(None))
        return OK if b"[DONE]" in text else BROKEN_OFF if b'"error"' in text else "no last event"

    return send


def embed(base: str, model: str, key: str = "") -> Send:
    """Return a function that sends an embedding request and returns its outcome."""
    return _post(f"{base}/v1/embeddings", json={"model": model, "input": "hello"}, headers=_headers(key))


def transcribe(base: str, model: str, audio: bytes) -> Send:
    """Return a function that sends a transcription request and returns its outcome."""
    return _post(f"{base}/v1/audio/transcriptions", data={"model": model}, files={"file": ("speech.wav", audio)})


def speak(base: str, model: str) -> Send:
    """Return a function that sends a speech request and returns its outcome."""
    body = {"model": model, "input": "Good morning.", "response_format": "wav"}

    def send() -> str:
        audio = b""
        with requests.post(f"{base}/v1/audio/speech", json=body, stream=True, timeout=90) as response:
            try:
                for part in response.iter_content(None):
                    audio += part
            except requests.exceptions.ChunkedEncodingError:
                if len(audio) <= _WAV_HEADER_BYTES:
                    raise
                return BROKEN_OFF
        return OK if response.status_code == 200 else f"{response.status_code} {audio[:200]!r}"

    return send


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _post(url: str, **options: object) -> Send:
    def send() -> str:
        response = requests.post(url, timeout=90, **options)  # type: ignore[arg-type]
        return OK if response.status_code == 200 else f"{response.status_code} {response.text[:200]}"

    return send


@contextmanager
def running_traffic(clients: dict[str, list[Send]]) -> Iterator[Traffic]:
    """Send requests from all clients, by kind, one after another per client, until the block ends."""
    traffic, stop = Traffic(), threading.Event()

    def run(kind: str, send: Send) -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                outcome = send()
            except requests.RequestException as error:
                outcome = repr(error)[:200]
            traffic.record(kind, outcome, time.monotonic() - started)

    threads = [
        threading.Thread(target=run, args=(kind, send), daemon=True)
        for kind, sends in clients.items()
        for send in sends
    ]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
