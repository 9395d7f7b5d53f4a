"""Starts, monitors and stops Triton and the frontend, and restarts Triton when it fails."""

import contextlib
import http.client
import json
import math
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
from trident.launch.better_model import STARTER, Suggestion
from trident.launch.children import ChildLog, start_child
from trident.launch.discovery import Discovery
from trident.launch.examples import brief_example, example
from trident.launch.instance import Instance
from trident.launch.preflight import LaunchError, check_embedded, check_frontend, check_gateway
from trident.launch.settings_file import SettingsFile
from trident.launch.triton_server import ModelDied, TritonServer

_CHECK_SECONDS = 0.25
_LOAD_SECONDS = 300.0
_WEB_SECONDS = 30.0
# Each check of a Triton that does not run yet writes a line to the log.
_POLL_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 60.0


# No proxy may get the requests to this machine, which have a key.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class _Stopped(Exception):
    """A stop was requested by a signal or by POST /shutdown."""


class _FrontendStopped(LaunchError):
    """The frontend exited with an error."""


class Supervisor:
    """The owner of the frontend process and, unless Triton runs elsewhere, of Triton's processes.

    The supervisor restarts Triton when Triton hangs, and when Triton or one of its backend processes exits.
    """

    def __init__(self, settings: Settings, load: Callable[[], Settings]):
        self._settings, self._load = settings, load
        self.is_temporary = False
        """Whether a command runs Trident only for itself, and sends the first requests."""
        # Not a threading.Event: a signal handler could deadlock on the Event's lock. SimpleQueue.put is reentrant.
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._triton: TritonServer | None = None
        self._web: subprocess.Popen[bytes] | None = None
        self._web_log: ChildLog | None = None
        self._suggestion: Suggestion | None = None
        self._settings_file: SettingsFile | None = None
        self._headers: dict[str, str] = {}
        any_address = {"0.0.0.0": f"127.0.0.1:{settings.port}", "::": f"[::1]:{settings.port}"}  # noqa: S104
        self._url = f"http://{any_address.get(settings.host, settings.address)}"

    def request_stop(self) -> None:
        """Make `run` stop everything and return. A signal handler may call this method."""
        self._stop.put(None)

    def run(self) -> None:
        """Start the processes, print the URL and monitor the processes until stopped.

        Raise LaunchError if the startup fails, or if the frontend exits with an error.
        """
        instance = Instance(self._settings.run_folder)
        with instance.acquire(self._url, self._about()):
            check_frontend(self._settings)
            if self._settings.starts_triton:
                check_embedded(self._settings)
                self._triton = TritonServer(self._settings)
            if version := check_gateway(self._settings):
                _say(f"Version {version} of the configuration applies (see docs/gateway.md), not that of the settings")
            instance.write_key()
            if self.is_temporary:
                instance.mark_temporary()
            self._headers = instance.headers()
            self._settings_file = SettingsFile(self._settings, self._load)
            if self._settings.discover:
                Discovery(self._settings).start()
            instance.write_pid()
            try:
                self._run(instance)
            finally:
                if self.is_temporary:
                    shutil.rmtree(self._settings.run_folder, ignore_errors=True)

    def _about(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "address": settings.host,
            "stop_seconds": settings.shutdown_delay + settings.drain_seconds,
            "on_demand": settings.models_on_demand,
        }

    def _stop_requested(self, seconds: float) -> bool:
        """Wait up to `seconds` for a stop request. Return whether a stop has been requested."""
        try:
            self._stop.get(timeout=seconds)
        except queue.Empty:
            return False
        self._stop.put(None)
        return True

    def _run(self, instance: Instance) -> None:
        try:
            self._start()
            self._greet()
            self._watch()
        except _Stopped:
            _say("Stopping")
        finally:
            with contextlib.suppress(OSError):
                instance.mark_stopping()
            self._stop_all()
            self._remove_files()

    def _start(self) -> None:
        started = time.monotonic()
        if STARTER in self._settings.models and not self.is_temporary and not os.environ.get("HF_HUB_OFFLINE"):
            self._suggestion = Suggestion()
        if self._triton:
            _say(f"Starting Triton with {', '.join(self._settings.models)} (log: {self._triton.log})")
            self._start_triton()
            _say(f"Triton is ready after {time.monotonic() - started:.1f} s")
        _say("Starting the frontend")
        self._remove_files()  # a frontend that was killed may have left files
        command = [sys.executable, "-m", "frontend.server"]
        environment = os.environ | self._settings.as_environment()
        self._web = start_child(command, environment, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._web_log = ChildLog(self._settings.run_folder / "frontend.log", echo=True)
        self._web_log.follow(self._web.stdout)
        self._wait(self._responds, _WEB_SECONDS, "The frontend")
        if not self._settings.starts_triton and not self._healthy():
            _say("Waiting for Triton")
            self._wait(self._healthy_after_changes, math.inf, "Triton", pause=_POLL_SECONDS)
        if not self.is_temporary:
            self._send_first_requests()

    def _remove_files(self) -> None:
        shutil.rmtree(self._settings.image_folder, ignore_errors=True)
        shutil.rmtree(self._settings.response_folder, ignore_errors=True)

    def _start_triton(self) -> None:
        assert self._triton is not None  # noqa: S101
        self._triton.start()
        url = f"http://127.0.0.1:{self._settings.triton_http_port}/v2/health/ready"
        self._wait(lambda: _status(url) == 200, _LOAD_SECONDS, "Triton")
        self._triton.mark_ready()

    def _responds(self) -> bool:
        """Return whether the frontend is healthy or, with a Triton elsewhere, which may not run yet, responds."""
        return self._healthy() or (not self._settings.starts_triton and _status(f"{self._url}/health") != 0)

    def _healthy_after_changes(self) -> bool:
        """Return whether the frontend is healthy, after applying changes of the settings file."""
        if self._settings_file and (text := self._settings_file.check()):
            _say(text)
        return self._healthy()

    def _healthy(self) -> bool:
        return _status(f"{self._url}/health") == 200

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
        """Wait until `ready()` returns true. It is called after each `pause`.

        Raise LaunchError if a process fails or `seconds` pass before that. Raise _Stopped if a stop is requested.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self._check_web()
            if self._triton:
                self._triton.check()
            if time.monotonic() > deadline:
                tail = f"\n{self._triton.last_errors()}" if self._triton else ""
                raise LaunchError(f"{what} was not ready after {seconds:.0f} s.{tail}")
            if self._stop_requested(pause):
                raise _Stopped

    def _send_first_requests(self) -> None:
        """Send an example request to each model that has one, through the frontend and Triton.

        Raise LaunchError if a request fails, unless Triton runs elsewhere, where other clients may keep it busy.
        """
        for model in self._models():
            if (request := brief_example(model)) is None:
                continue
            started = time.monotonic()
            path, body = request
            headers = {"Content-Type": "application/json"} | self._headers
            try:
                post = urllib.request.Request(f"{self._url}{path}", orjson.dumps(body), headers)
                with _OPENER.open(post, timeout=_WEB_SECONDS) as response:
                    response.read()
            except (OSError, http.client.HTTPException) as error:
                message = f"{model['id']} loaded, but its first request failed: {error}"
                if self._settings.starts_triton:
                    raise LaunchError(message) from error
                _say(message)
                continue
            _say(f"{model['id']} responded in {time.monotonic() - started:.1f} s")

    def _models(self) -> list[dict[str, Any]]:
        """Return the loaded models. Raise LaunchError if the frontend does not list them."""
        try:
            get = urllib.request.Request(f"{self._url}/v1/models", headers=self._headers)
            with _OPENER.open(get, timeout=_WEB_SECONDS) as response:
                models: list[dict[str, Any]] = orjson.loads(response.read())["data"]
        except OSError as error:
            raise LaunchError(f"The frontend does not list its models: {error}") from error
        return [model for model in models if model["state"] == "READY"]

    def _greet(self) -> None:
        print(f"\nTrident serves OpenAI's API at {self._url}/v1\n", flush=True)
        if first := next(filter(None, map(example, self._models())), None):
            path, body = first
            print(
                f"  curl {self._url}{path} -H 'Content-Type: application/json' \\\n    -d '{json.dumps(body)}'\n",
                flush=True,
            )
        if self._suggestion and (text := self._suggestion.text()):
            print(f"{text}\n", flush=True)
        print(f"Press Ctrl-C or run `trident stop --port {self._settings.port}` to stop.", flush=True)

    def _watch(self) -> None:
        pause, started = 1.0, time.monotonic()
        while not self._stop_requested(_CHECK_SECONDS):
            self._check_web()
            if self._settings_file and (text := self._settings_file.check()):
                _say(text)
            try:
                if self._triton:
                    self._triton.check()
            except ModelDied as error:
                _say(f"{error}\nLoading {error.model} again")
                assert self._triton is not None  # noqa: S101
                self._triton.revive(error.model)
            except LaunchError as error:
                stable = time.monotonic() - started > _STABLE_SECONDS
                pause = 1.0 if stable else min(2 * pause, _MAX_PAUSE_SECONDS)
                _say(f"{error}\nRestarting Triton")
                self._restart_triton(pause)
                started = time.monotonic()
        raise _Stopped

    def _restart_triton(self, pause: float) -> None:
        assert self._triton is not None  # noqa: S101
        while True:
            self._triton.stop(timeout=0)
            try:
                self._start_triton()
            except _FrontendStopped:
                raise
            except LaunchError as error:
                _say(f"{error}\nRetrying in {pause:.0f} s")
                if self._stop_requested(pause):
                    raise _Stopped from None
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                _say("Triton is ready again")
                return

    def _check_web(self) -> None:
        """Raise _Stopped if the frontend exited normally (POST /shutdown), or _FrontendStopped if it failed."""
        code = self._web.poll() if self._web else None
        if code == 0:
            raise _Stopped
        if code is not None:
            if self._web_log:
                self._web_log.finish()
            raise _FrontendStopped(f"The frontend exited with code {code}; see its output above.")

    def _stop_all(self) -> None:
        if self._web:
            self._web.terminate()
            try:
                self._web.wait(self._settings.shutdown_delay + self._settings.drain_seconds + 4)
            except subprocess.TimeoutExpired:
                self._web.kill()
                self._web.wait()
        if self._triton:
            # A temporary instance has no requests left that could be cut off.
            self._triton.stop(timeout=0) if self.is_temporary else self._triton.stop()
        _say("Stopped")


def run(settings: Settings, load: Callable[[], Settings], *, is_temporary: bool = False) -> int:
    """Run Trident until it is stopped or fails, and return the exit code. `load` reads the settings again.

    `is_temporary`: see Supervisor.
    """
    supervisor = Supervisor(settings, load)
    supervisor.is_temporary = is_temporary
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: supervisor.request_stop())
    try:
        supervisor.run()
    except LaunchError as error:
        print(f"\ntrident: {error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(f"trident: {text}", flush=True)


def _status(url: str) -> int:
    """Return the HTTP status of a URL, or 0 if nothing responds."""
    try:
        with _OPENER.open(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0
