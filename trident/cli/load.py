"""A load of streamed chat requests with random prompts, or of one file, and the measurement of the latencies."""

import itertools
import queue
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from trident.cli import requests
from trident.cli.client import ServerError
from trident.cli.options import is_terminal
from trident.cli.session import Session

_MAX_OPEN = 1024
_WORDS = [
    "river",
    "stone",
    "cloud",
    "bridge",
    "window",
    "garden",
    "winter",
    "letter",
    "engine",
    "market",
    "valley",
    "silver",
    "morning",
    "harbor",
    "forest",
    "candle",
    "paper",
    "mountain",
    "shadow",
    "island",
    "copper",
    "signal",
    "meadow",
    "lantern",
    "village",
    "thunder",
    "mirror",
    "harvest",
    "castle",
    "desert",
]


@dataclass(frozen=True)
class Load:
    """How many requests of which lengths are sent, and when: at most `concurrency` at once, or `rate` per second."""

    input_tokens: int
    output_tokens: int
    num_requests: int
    concurrency: int | None
    rate: float | None
    warmup: int
    seed: int
    file: Path | None = None
    """The file to send instead of prompts: audio to transcribe, or a picture whose background is removed."""


@dataclass
class Report:
    """The results. Times are in seconds."""

    model: str
    load: Load
    seconds: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    first_tokens: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """The times between the parts of the responses."""
    durations: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def output_rate(self) -> float:
        """The tokens per second of all responses together."""
        return self.output_tokens / self.seconds

    def add(self, started: float, arrivals: Sequence[float], usage: dict[str, Any]) -> None:
        """Record a response. `arrivals` are the times of its parts."""
        with self._lock:
            self.prompt_tokens += usage.get("prompt_tokens", 0)
            self.output_tokens += usage.get("completion_tokens", 0)
            if not self.load.file:
                self.first_tokens.append(arrivals[0] - started)
            self.gaps += [later - earlier for earlier, later in itertools.pairwise(arrivals)]
            self.durations.append(arrivals[-1] - started)

    def add_error(self, error: str) -> None:
        """Record a request that failed."""
        with self._lock:
            self.errors[error] += 1

    def summary(self, percentiles: Sequence[int]) -> dict[str, Any]:
        """Return the results, with times in milliseconds. Times without a measurement are None."""
        done = len(self.durations)
        found: dict[str, Any] = {
            "model": self.model,
            "concurrency": self.load.concurrency,
            "rate": self.load.rate,
            "requests": done,
            "failed": sum(self.errors.values()),
            "duration_s": round(self.seconds, 2),
            "input_tokens_mean": round(self.prompt_tokens / done, 1) if done else None,
            "output_tokens_mean": round(self.output_tokens / done, 1) if done else None,
            "requests_per_s": round(done / self.seconds, 2),
            "output_tokens_per_s": round(self.output_rate, 1),
            "total_tokens_per_s": round((self.prompt_tokens + self.output_tokens) / self.seconds, 1),
        }
        for name, values in (("ttft", self.first_tokens), ("itl", self.gaps), ("latency", self.durations)):
            for each in percentiles:
                found[f"{name}_p{each}_ms"] = round(1000 * percentile(values, each), 1) if values else None
        return found | {"errors": dict(self.errors)}


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least one value, interpolated between the values."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def run_load(session: Session, load: Load) -> Report:
    """Send the warm-up and the measured requests, and return the results.

    Raises ServerError if the requests with which the length of the prompts is found fail.
    """
    chance = random.Random(load.seed)  # noqa: S311
    words = 1 if load.file else _words_for(session, load.input_tokens, chance)
    _send_all(session, load, [_prompt(words, chance) for _ in range(load.warmup)], Report(session.model_id, load), None)
    report = Report(session.model_id, load)
    prompts = [_prompt(words, chance) for _ in range(load.num_requests)]
    started = time.perf_counter()
    _send_all(session, load, prompts, report, _delays(load, chance))
    report.seconds = time.perf_counter() - started
    return report


def _words_for(session: Session, tokens: int, chance: random.Random) -> int:
    """Return how many words make a prompt of this length, as the server counts it with its chat template."""
    few, many = 8, 72
    counts = [_count_tokens(session, _prompt(words, chance)) for words in (few, many)]
    each = max((counts[1] - counts[0]) / (many - few), 0.1)
    return max(1, round(few + (tokens - counts[0]) / each))


def _count_tokens(session: Session, prompt: str) -> int:
    response = session.server.post(
        "/v1/chat/completions",
        {"model": session.model_id, "messages": [{"role": "user", "content": prompt}], "max_tokens": 1},
    )
    usage = response.get("usage") or {}
    return int(usage.get("prompt_tokens") or len(prompt.split()))


def _prompt(words: int, chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _delays(load: Load, chance: random.Random) -> list[float] | None:
    """Return when each request is sent, as a Poisson process, or None without a rate."""
    if load.rate is None:
        return None
    times, now = [], 0.0
    for _ in range(load.num_requests):
        times.append(now)
        now += chance.expovariate(load.rate)
    return times


def _send_all(
    session: Session, load: Load, prompts: Sequence[str], report: Report, times: Sequence[float] | None
) -> None:
    """Send the prompts, and return when all have been answered.

    The threads are daemons, so that Ctrl-C does not wait for the responses in progress.
    """
    started, waiting, done = time.perf_counter(), iter(list(enumerate(prompts))), queue.SimpleQueue[None]()
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                index, prompt = next(waiting, (0, None))
            if prompt is None:
                return
            if times:
                time.sleep(max(0.0, started + times[index] - time.perf_counter()))
            try:
                _send(session, load, prompt, report)
            finally:
                done.put(None)

    # With a rate, each request has a thread, so that none waits for another one.
    for _ in range(min(load.concurrency or _MAX_OPEN, len(prompts))):
        threading.Thread(target=run, name="load", daemon=True).start()
    for number in range(len(prompts)):
        done.get()
        _show_progress(number + 1, len(prompts))


def _show_progress(done: int, total: int) -> None:
    if is_terminal(sys.stderr):
        click.echo(f"\r{done} of {total} requests" if done < total else "\r\x1b[K", nl=False, err=True)


def _send(session: Session, load: Load, prompt: str, report: Report) -> None:
    messages = [{"role": "user", "content": prompt}]
    started, arrivals, usage = time.perf_counter(), list[float](), dict[str, Any]()
    try:
        if load.file:
            _send_file(session, load.file)
            arrivals.append(time.perf_counter())
            report.add(started, arrivals, usage)
            return
        for chunk in requests.stream_chat(session, messages, max_tokens=load.output_tokens, ignore_eos=True):
            usage = chunk.get("usage") or usage
            if any(_has_output(choice.get("delta") or {}) for choice in chunk.get("choices", ())):
                arrivals.append(time.perf_counter())
        if not arrivals:
            raise ServerError(0, "The response is empty")
    except ServerError as error:
        report.add_error(str(error))
    else:
        report.add(started, arrivals, usage)


def _send_file(session: Session, file: Path) -> None:
    if session.model["task"] == "transcription":
        requests.transcribe(session, file, "text")
    else:
        requests.remove_background(session, file)


def _has_output(delta: dict[str, Any]) -> bool:
    return bool(delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"))
