"""A real Redis server for tests."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.support.debian import unpacked
from tests.support.stack import free_ports


class RedisServer:
    """A Redis server on a free port, which can be killed, stopped for a while and started again."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program, environment = _program()
        command = [program, "--port", str(self.port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                redis.Redis.from_url(self.url).ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "Redis did not start"
                time.sleep(0.05)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _program() -> tuple[str, dict[str, str]]:
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found, dict(os.environ)
    folder = unpacked("redis", "redis-server", "redis-tools", "liblzf1", "libjemalloc2")
    libraries = folder / "usr" / "lib" / "x86_64-linux-gnu"
    return str(folder / "usr" / "bin" / "redis-server"), os.environ | {"LD_LIBRARY_PATH": str(libraries)}
