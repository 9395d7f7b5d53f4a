"""Benchmark of the command line.

`make bench BENCH=cli` measures the time of `trident --help`, `ps` and `list`; the time from a request to the first
token that is printed, for `trident run` and for curl, in turns; and the time of `trident run` without a server. It
prints each time divided by its limit.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from export.catalog import load_catalog, starter_names
from frontend.settings import Settings
from tests.support.live import MODEL
from tests.support.stack import running_stack

_TRIDENT = [sys.executable, "-m", "trident"]
_PROMPT = "Count to twenty."
# Seconds, as the project wants them.
_LIMITS = {"--help": 0.2, "ps": 0.25, "list": 0.25}
_LATER, _START = 0.06, 8.0


class Relay:
    """A proxy for `port` that records when the first byte of a POST request arrives."""

    def __init__(self, port: int):
        self._target, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sent_at = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((client, server), (server, client)):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other direction has ended
            while data := source.recv(1 << 16):
                if data.startswith(b"POST "):
                    self.sent_at = time.perf_counter()
                sink.sendall(data)
        sink.close()


def _first_token(command: Sequence[str], relay: Relay, is_token: Callable[[bytes], bool]) -> float:
    """Return the time from the request to the first output that is a token."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdout is not None
        output = b""
        while not is_token(output):
            part = process.stdout.read(1 << 16)
            assert part, output
            output += part
        seconds = time.perf_counter() - relay.sent_at
        while process.stdout.read(1 << 16):
            pass
    return seconds


def _seconds(arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([*_TRIDENT, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _compare_first_tokens(rounds: int, port: int) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": _PROMPT}], "stream": True, "max_tokens": 16}
    relay = Relay(port)
    url = f"http://127.0.0.1:{relay.port}"
    curl = ["curl", "-sN", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    curl += ["-d", json.dumps(body | {"temperature": 0})]
    run = [*_TRIDENT, "run", MODEL, _PROMPT, "--url", url, "--max-tokens", "16", "--temperature", "0"]
    differences = []
    for number in range(rounds + 1):
        ours = _first_token(run, relay, bool)
        theirs = _first_token(curl, relay, lambda output: b'"content":"' in output.replace(b'"content":""', b""))
        if number:  # the first round warms up
            differences.append(ours - theirs)
    later = statistics.median(differences)
    print(
        f"first token after curl's: {1000 * later:.1f} ms; {later / _LATER:.2f} of the limit of {1000 * _LATER:.0f} ms"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for name in ("TRIDENT_URL", "TRIDENT_API_KEY"):
        os.environ.pop(name, None)
    with running_stack([MODEL]) as settings:
        for arguments, limit in _LIMITS.items():
            seconds = statistics.median(_seconds([arguments]) for _ in range(rounds))
            print(f"trident {arguments}: {1000 * seconds:.0f} ms; {seconds / limit:.2f} of the limit")
        _compare_first_tokens(rounds, settings.port)
    starter = starter_names()[0]
    assert load_catalog()[starter].task == "chat"
    with tempfile.TemporaryDirectory() as folder:  # without the servers of the user's cache
        for name in ("converted", "downloads"):
            (Path(folder) / name).symlink_to(Settings().cache / name)
        os.environ["TRIDENT_CACHE"] = folder
        command = ["run", starter, "Say hello", "--max-tokens", "16"]
        seconds = statistics.median(_seconds(command) for _ in range(max(3, rounds // 5)))
    print(f"trident run without a server: {seconds:.1f} s; {seconds / _START:.2f} of the limit")


if __name__ == "__main__":
    main()
