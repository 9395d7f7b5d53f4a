"""Benchmark of chat latency during a long prompt, with cached prompts, and with a full queue.

`make bench BENCH=latency` makes three measurements:
- Gaps: the time between the deltas of eight running streams, with and without a 4,000-token prompt arriving meanwhile.
- Prefix cache: the time to first token of a 2,000-token prompt that is new, or cached except for its last words.
- Overload: while one client has as many requests as it may queue, how soon its next request is rejected, and how soon
  another client gets its first token.
"""

import argparse
import http.client
import itertools
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from tests.support.load import chat_body
from tests.support.stack import running_stack

MODEL = "smollm2-135m"
_STREAMS, _TOKENS = 8, 400
_OVERLOAD_REQUESTS = 400


def _text(num_tokens: int, index: int) -> str:
    """Return a text of about `num_tokens` tokens. With a new `index`, the text is not in the prefix cache."""
    return f"Number {index}. " + " ".join(f"word{(index * 7919 + i) % 997}" for i in range(num_tokens // 3))


def _send_chat(port: int, body: bytes, address: str = "127.0.0.1") -> http.client.HTTPConnection:
    """Send a chat request from the local address `address`, which identifies the client; return its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300, source_address=(address, 0))
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection


def _arrival_times(port: int, body: bytes, address: str = "127.0.0.1") -> list[float]:
    """Send a streamed chat; return the time at which it was sent, followed by the arrival time of each delta."""
    times = [time.perf_counter()]
    connection = _send_chat(port, body, address)
    response = connection.getresponse()
    while line := response.readline():
        if b'"content":"' in line and b'"content":""' not in line:
            times.append(time.perf_counter())
    connection.close()
    return times


def _gaps(port: int, index: int, with_long_prompt: bool) -> list[float]:
    """Run eight streams, and return the times between consecutive deltas of each stream, in milliseconds.

    With `with_long_prompt`, a long prompt arrives while they run.
    """
    bodies = [chat_body(MODEL, f"Tell me story {index * _STREAMS + i}.", _TOKENS) for i in range(_STREAMS)]
    long = chat_body(MODEL, _text(4000, index), 2)
    with ThreadPoolExecutor(_STREAMS) as pool:
        running = [pool.submit(_arrival_times, port, body) for body in bodies]
        time.sleep(1.5)
        thread = threading.Thread(target=_arrival_times, args=(port, long)) if with_long_prompt else None
        if thread:
            thread.start()
        streams = [stream.result()[1:] for stream in running]
        if thread:
            thread.join()
    return [1000 * (after - before) for times in streams for before, after in itertools.pairwise(times)]


def _first_token_time(port: int, text: str, address: str = "127.0.0.1") -> float:
    started, first, *_ = _arrival_times(port, chat_body(MODEL, text, 2), address)
    return 1000 * (first - started)


def _rejection_time(port: int, body: bytes) -> float | None:
    """Return the milliseconds until a request was rejected with a 503; None if that did not happen within a second."""
    started = time.perf_counter()
    with closing(_send_chat(port, body)) as connection:
        assert connection.sock is not None
        connection.sock.settimeout(1)
        try:
            status = connection.getresponse().status
        except TimeoutError:
            return None
    return 1000 * (time.perf_counter() - started) if status == 503 else None


def _overload(port: int, requests: int = 100) -> None:
    """Print how soon a full queue rejects a request, and how soon another client gets its first token."""
    body = chat_body(MODEL, "Tell me a very long story.", 4000)
    connections = [_send_chat(port, body) for _ in range(_OVERLOAD_REQUESTS)]
    time.sleep(5)
    rejections = sorted(elapsed for _ in range(requests) if (elapsed := _rejection_time(port, body)) is not None)
    assert rejections, "no request was rejected: the engine is too fast for this load"
    print(
        f"{_OVERLOAD_REQUESTS} requests from one client: {len(rejections)} of {requests} more rejected, "
        + _percentiles(rejections),
        flush=True,
    )
    other = sorted(_first_token_time(port, f"Number {i}: who are you?", "127.0.0.2") for i in range(10))
    print(f"time to first token of another client meanwhile: {_percentiles(other)}")
    for connection in connections:
        connection.close()


def _percentiles(values: list[float]) -> str:
    return ", ".join(f"p{100 * fraction:.0f} {_percentile(values, fraction):.0f} ms" for fraction in (0.5, 0.99, 1))


def _percentile(values: list[float], fraction: float) -> float:
    return sorted(values)[int(fraction * (len(values) - 1))]


def main() -> None:
    """Run all three measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with running_stack([MODEL]) as stack:
        _gaps(stack.port, 999, False)
        gaps: dict[bool, list[float]] = {False: [], True: []}
        for i in range(rounds):
            for with_long_prompt in gaps:
                gaps[with_long_prompt] += _gaps(stack.port, 2 * i + with_long_prompt, with_long_prompt)
        for with_long_prompt, values in gaps.items():
            which = "with" if with_long_prompt else "without"
            print(f"gaps between deltas of {_STREAMS} streams, {which} the long prompt: {_percentiles(values)}")
        ratios = []
        for i in range(100, 100 + 2 * rounds):
            text = _text(2000, i)
            new, cached = (_first_token_time(stack.port, f"{text} Now say {last}.") for last in ("one", "two"))
            ratios.append(new / cached)
            print(f"time to first token of 2,000 tokens: new {new:.0f} ms, cached {cached:.0f} ms", flush=True)
        print(f"ratio {statistics.median(ratios):.1f}")
        _overload(stack.port)


if __name__ == "__main__":
    main()
