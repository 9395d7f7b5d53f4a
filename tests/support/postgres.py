"""A real PostgreSQL server for tests."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.debian import unpacked
from tests.support.stack import free_ports

_USER = 65534  # PostgreSQL does not run as root


class Postgres:
    """A PostgreSQL server on a free port, which can be killed, stopped for a while and started again."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.port = free_ports(1)[0]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._run(["initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync"])

    def start(self) -> None:
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        command = ["postgres", "-D", str(self._folder / "data"), "-p", str(self.port), "-k", str(self._folder)]
        self._process = subprocess.Popen(
            [_programs() / command[0], *command[1:]], stderr=subprocess.DEVNULL, **_user(), start_new_session=True
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.Error:
                assert time.monotonic() < deadline, "PostgreSQL did not start"
                time.sleep(0.1)

    def kill(self) -> None:
        """Kill all processes of the server."""
        assert self._process
        self._signal(signal.SIGKILL)
        self._process.wait()

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        import psutil

        assert self._process
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            process.send_signal(number)

    def _run(self, command: list[str]) -> None:
        subprocess.run([_programs() / command[0], *command[1:]], check=True, capture_output=True, **_user())


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.getuid() == 0:
            os.chown(folder, _USER, _USER)
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _user() -> dict[str, int]:
    return {"user": _USER, "group": _USER} if os.getuid() == 0 else {}


def _programs() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), Path("/usr/local/bin")]
    found_in = next((folder for folder in folders if (folder / "initdb").exists()), None)
    return found_in or next((unpacked("postgresql", "postgresql-15") / "usr/lib/postgresql").glob("*/bin"))
