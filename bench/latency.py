"""What a long prompt and a crowd do to others, and what a known prompt gains: `make bench BENCH=latency`.

Gaps: eight streams run; the longest gaps between two pieces of text of theirs, with and without a prompt of 4,000
tokens arriving among them. Prefix: the time to the first token of a prompt of 2,000 tokens, new and known but for its
last words. Both in turns, several rounds. Overload: a client has more requests than the queue takes; how soon one more
of its is refused, and another client has its first token.
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
_CROWD = 400


def _text(words: int, number: int) -> str:
    """Return a text of about as many tokens as words, which is not known from another one."""
    return f"Number {number}. " + " ".join(f"word{(number * 7919 + place) % 997}" for place in range(words // 3))


def _ask(port: int, body: bytes, address: str = "127.0.0.1") -> http.client.HTTPConnection:
    """Send a chat from an address of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300, source_address=(address, 0))
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection


def _pieces(port: int, body: bytes, address: str = "127.0.0.1") -> list[float]:
    """Return when each piece of an answer came, after when it was asked for."""
    times = [time.perf_counter()]
    connection = _ask(port, body, address)
    response = connection.getresponse()
    while line := response.readline():
        if b'"content":"' in line and b'"content":""' not in line:
            times.append(time.perf_counter())
    connection.close()
    return times


def _gaps(port: int, number: int, with_long_prompt: bool) -> list[float]:
    """Return all gaps, in milliseconds, between the pieces of the running streams."""
    bodies = [chat_body(MODEL, f"Tell me story {number * _STREAMS + i}.", _TOKENS) for i in range(_STREAMS)]
    long = chat_body(MODEL, _text(4000, number), 2)
    with ThreadPoolExecutor(_STREAMS) as pool:
        running = [pool.submit(_pieces, port, body) for body in bodies]
        time.sleep(1.5)
        other = threading.Thread(target=_pieces, args=(port, long)) if with_long_prompt else None
        if other:
            other.start()
        streams = [stream.result()[1:] for stream in running]
        if other:
            other.join()
    return [1000 * (after - before) for times in streams for before, after in itertools.pairwise(times)]


def _first_token(port: int, text: str, address: str = "127.0.0.1") -> float:
    started, first, *_ = _pieces(port, chat_body(MODEL, text, 2), address)
    return 1000 * (first - started)


def _refusal(port: int, body: bytes) -> float | None:
    """Return after how many milliseconds a request was refused; None if there was a place for it."""
    started = time.perf_counter()
    with closing(_ask(port, body)) as connection:
        assert connection.sock is not None
        connection.sock.settimeout(1)
        try:
            status = connection.getresponse().status
        except TimeoutError:
            return None
    return 1000 * (time.perf_counter() - started) if status == 503 else None


def _overload(port: int, requests: int = 100) -> None:
    """Print how soon one request too many is refused, and how soon somebody else is answered."""
    body = chat_body(MODEL, "Tell me a very long story.", 4000)
    crowd = [_ask(port, body) for _ in range(_CROWD)]
    time.sleep(5)
    waited = sorted(found for _ in range(requests) if (found := _refusal(port, body)) is not None)
    assert waited, "nothing was refused: the engine is too fast for this crowd"
    print(f"{_CROWD} requests of one client: {len(waited)} of {requests} more refused, " + _shown(waited), flush=True)
    other = sorted(_first_token(port, f"Number {number}: who are you?", "127.0.0.2") for number in range(10))
    print(f"first token of another client meanwhile: {_shown(other)}")
    for connection in crowd:
        connection.close()


def _shown(values: list[float]) -> str:
    return ", ".join(f"p{100 * part:.0f} {_percentile(values, part):.0f} ms" for part in (0.5, 0.99, 1))


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * (len(values) - 1))]


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with running_stack([MODEL]) as stack:
        _gaps(stack.port, 999, False)
        gaps: dict[bool, list[float]] = {False: [], True: []}
        for number in range(rounds):
            for with_long_prompt in gaps:
                gaps[with_long_prompt] += _gaps(stack.port, 2 * number + with_long_prompt, with_long_prompt)
        for with_long_prompt, values in gaps.items():
            which = "with" if with_long_prompt else "without"
            print(f"gaps of {_STREAMS} streams, {which} the long prompt: {_shown(values)}")
        ratios = []
        for number in range(100, 100 + 2 * rounds):
            text = _text(2000, number)
            new, known = (_first_token(stack.port, f"{text} Now say {last}.") for last in ("one", "two"))
            ratios.append(new / known)
            print(f"first token of 2,000 tokens: new {new:.0f} ms, known {known:.0f} ms", flush=True)
        print(f"ratio {statistics.median(ratios):.1f}")
        _overload(stack.port)


if __name__ == "__main__":
    main()
