"""Keeps Triton and the frontend running together, from the first check to the last process."""

import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import orjson

from contract.paths import CHECKOUT
from frontend.settings import Settings
from trident.launch.children import ChildLog, start_child
from trident.launch.examples import example
from trident.launch.instance import Instance
from trident.launch.preflight import LaunchError, check_embedded, check_frontend
from trident.launch.triton_server import TritonServer

_CHECK_SECONDS = 0.5
_LOAD_SECONDS = 300.0
_WEB_SECONDS = 30.0
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0


class _Stopped(Exception):
    """Stopping was asked for while something was waited for."""


class _FrontendStopped(LaunchError):
    """The frontend ended by itself."""


class Supervisor:
    """Starts both, restarts Triton when it or one of its backends dies, stops both."""

    def __init__(self, settings: Settings):
        self._settings = settings
        # Not an Event: its lock must not be asked for in a signal handler.
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._triton: TritonServer | None = None
        self._web: subprocess.Popen[bytes] | None = None
        self._web_log: ChildLog | None = None
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
        self._url = f"http://{host}:{settings.port}"

    def request_stop(self) -> None:
        """Make `run` stop everything and return; safe in a signal handler."""
        self._stop.put(None)

    def run(self) -> None:
        """Start, say where, keep going until stopped. Raises LaunchError when something cannot be started."""
        instance = Instance(self._settings.run_folder)
        with instance.hold(self._url):
            check_frontend(self._settings)
            if self._settings.triton is None:
                check_embedded(self._settings)
                self._triton = TritonServer(self._settings)
            instance.write_pid()
            self._run()

    def _stop_asked(self, seconds: float) -> bool:
        """Wait for that long and return whether stopping was asked for, now or before."""
        try:
            self._stop.get(timeout=seconds)
        except queue.Empty:
            return False
        self._stop.put(None)
        return True

    def _run(self) -> None:
        try:
            self._start()
            self._greet()
            self._watch()
        except _Stopped:
            _say("Stopping")
        finally:
            self._stop_all()
            self._forget_files()

    def _start(self) -> None:
        started = time.monotonic()
        if self._triton:
            _say(f"Starting Triton with {', '.join(self._settings.models)} (log: {self._triton.log})")
            self._start_triton()
            _say(f"Triton is ready after {time.monotonic() - started:.1f} s")
        _say("Starting the frontend")
        self._forget_files()  # of one that did not end by itself
        command = [sys.executable, "-m", "frontend.server"]
        environment = os.environ | self._settings.as_environment()
        self._web = start_child(command, environment, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._web_log = ChildLog(self._settings.run_folder / "frontend.log", echo=True)
        self._web_log.follow(self._web.stdout)
        self._wait(self._healthy, _WEB_SECONDS, "The frontend")
        self._first_answers()

    def _forget_files(self) -> None:
        shutil.rmtree(self._settings.image_folder, ignore_errors=True)
        shutil.rmtree(self._settings.response_folder, ignore_errors=True)

    def _start_triton(self) -> None:
        assert self._triton is not None  # noqa: S101
        self._triton.start()
        url = f"http://127.0.0.1:{self._settings.triton_http_port}/v2/health/ready"
        self._wait(lambda: _status(url) == 200, _LOAD_SECONDS, "Triton")
        self._triton.watch()

    def _healthy(self) -> bool:
        return _status(f"{self._url}/health") == 200

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until `ready()`. Raises LaunchError if a process dies first or time runs out."""
        deadline = time.monotonic() + seconds
        while not ready():
            self._check_web()
            if self._triton:
                self._triton.check()
            if time.monotonic() > deadline:
                tail = f"\n{self._triton.last_errors()}" if self._triton else ""
                raise LaunchError(f"{what} was not ready after {seconds:.0f} s.{tail}")
            if self._stop_asked(0.1):
                raise _Stopped

    def _first_answers(self) -> None:
        """Have every model answer once, through everything, before calling it served."""
        for model in self._models():
            if (request := example(model)) is None:
                continue
            started = time.monotonic()
            path, body = request
            headers = {"Content-Type": "application/json"}
            try:
                post = urllib.request.Request(f"{self._url}{path}", orjson.dumps(body), headers)
                with urllib.request.urlopen(post, timeout=_WEB_SECONDS) as response:
                    response.read()
            except (OSError, http.client.HTTPException) as error:
                raise LaunchError(f"{model['id']} loaded, but a first request failed: {error}") from error
            _say(f"{model['id']} answered in {time.monotonic() - started:.1f} s")

    def _models(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self._url}/v1/models", timeout=_WEB_SECONDS) as response:
            models: list[dict[str, Any]] = orjson.loads(response.read())["data"]
        return models

    def _greet(self) -> None:
        print(f"\nTrident serves OpenAI's API at {self._url}/v1\n", flush=True)
        if first := next(filter(None, map(example, self._models())), None):
            path, body = first
            print(
                f"  curl {self._url}{path} -H 'Content-Type: application/json' \\\n    -d '{json.dumps(body)}'\n",
                flush=True,
            )
        print(f"Ctrl-C or `trident stop --port {self._settings.port}` stops it.", flush=True)

    def _watch(self) -> None:
        pause, started = 1.0, time.monotonic()
        while not self._stop_asked(_CHECK_SECONDS):
            self._check_web()
            try:
                if self._triton:
                    self._triton.check()
            except LaunchError as error:
                steady = time.monotonic() - started > _STEADY_SECONDS
                pause = 1.0 if steady else min(2 * pause, _LONGEST_PAUSE)
                _say(f"{error}\nStarting Triton again")
                self._restart_triton(pause)
                started = time.monotonic()
        raise _Stopped

    def _restart_triton(self, pause: float) -> None:
        assert self._triton is not None  # noqa: S101
        while True:
            self._triton.stop(patience=0)
            try:
                self._start_triton()
            except _FrontendStopped:
                raise
            except LaunchError as error:
                _say(f"{error}\nNext try in {pause:.0f} s")
                if self._stop_asked(pause):
                    raise _Stopped from None
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                _say("Triton is ready again")
                return

    def _check_web(self) -> None:
        """Raise _Stopped if the frontend has shut down, as POST /shutdown makes it; _FrontendStopped if it failed."""
        code = self._web.poll() if self._web else None
        if code == 0:
            raise _Stopped
        if code is not None:
            if self._web_log:
                self._web_log.finish()
            raise _FrontendStopped(f"The frontend stopped with exit code {code}; what it said is above.")

    def _stop_all(self) -> None:
        if self._web:
            self._web.terminate()
            try:
                self._web.wait(self._settings.drain_seconds + 4)
            except subprocess.TimeoutExpired:
                self._web.kill()
                self._web.wait()
        if self._triton:
            self._triton.stop()
        _say("Stopped")


def run(settings: Settings) -> int:
    """Run until stopped; return the exit code."""
    supervisor = Supervisor(settings)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.request_stop())
    try:
        supervisor.run()
    except LaunchError as error:
        print(f"\ntrident: {error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(f"trident: {text}", flush=True)


def _status(url: str) -> int:
    """Return a URL's HTTP status; 0 where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0
