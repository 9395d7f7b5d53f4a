"""The client of the engine process. It starts and restarts that process, sends requests, and receives new tokens."""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from backends.common.child_process import ChildProcess, module_command
from backends.common.errors import EngineDown, EngineFailure, InvalidRequest
from backends.generation.engine.ipc import (
    Cancel,
    Failed,
    Gauges,
    Generate,
    GenerateWithImages,
    Ready,
    ReadyToRestart,
    Shutdown,
    StepResult,
)
from backends.generation.output.generated_text import GeneratedText
from backends.generation.prompt.chat_prompt import Prompt
from contract.parameters import GenerationParameters

log = logging.getLogger(__name__)

_MAX_PAUSE_SECONDS = 30.0

ENGINES = {"openvino": "backends.generation.engine.process", "llamacpp": "backends.generation.llamacpp.process"}
"""Engine → the module that its process runs."""


class _Link:
    """A connection to one engine process.

    `send` does not block: a thread writes the messages, because the engine reads them only between steps.
    """

    def __init__(self, connection: Connection):
        self.connection = connection
        self._outgoing: queue.SimpleQueue[Generate | GenerateWithImages | Cancel | Shutdown | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._write, name="engine-writer", daemon=True).start()

    def send(self, message: Generate | GenerateWithImages | Cancel | Shutdown) -> None:
        self._outgoing.put(message)

    def close(self) -> None:
        self._outgoing.put(None)

    def _write(self) -> None:
        with self.connection:
            while (message := self._outgoing.get()) is not None:
                try:
                    self.connection.send(message)
                except OSError:
                    return  # the engine process has exited; the thread that receives messages handles that


class EngineClient:
    """The backend's client for the engine. Until `stop` is called, it replaces engine processes that exit.

    `on_progress(answers)` is called from this object's own thread, with the answers (possibly none) that have new
    tokens or have failed.
    """

    def __init__(
        self, folder: Path, parameters: GenerationParameters, on_progress: Callable[[Iterable[GeneratedText]], None]
    ):
        self._folder, self._parameters, self._on_progress = folder, parameters, on_progress
        self.gauges = Gauges()
        self._lock = threading.Lock()
        self._answers: dict[int, GeneratedText] = {}
        self._last_request_id = 0
        self._link: _Link | None = None
        self._process: ChildProcess | None = None
        self._planned_restart = False
        self._deferred: list[tuple[GeneratedText, Prompt]] = []
        """Requests submitted during a planned restart. They go to the next engine, or fail if it does not start."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine-client", daemon=True)

    def start(self) -> None:
        """Start the engine and wait until it is ready. Raises EngineDown if its process exits before it is ready."""
        self._connect()
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted: an engine is running, or a planned restart is in progress."""
        return self._link is not None or self._planned_restart

    def submit(self, answer: GeneratedText, prompt: Prompt) -> None:
        """Submit a request to the engine; do nothing if the request has been cancelled.

        During a planned restart (see `_allow_restart`), the request waits for the next engine process. At other times,
        raises EngineDown if no engine is running.
        """
        with self._lock:
            if answer.closed:
                return
            if self._planned_restart:
                self._deferred.append((answer, prompt))
                return
            if self._link is None:
                raise EngineDown("The model's engine is restarting")
            self._send(self._link, answer, prompt)

    def _send(self, link: _Link, answer: GeneratedText, prompt: Prompt) -> None:
        self._last_request_id += 1
        answer.engine_request_id = self._last_request_id
        self._answers[answer.engine_request_id] = answer
        link.send(_generate_message(answer, prompt))

    def cancel(self, answer: GeneratedText) -> None:
        """Close an answer. If its request is unfinished, cancel it in the engine or drop it from `_deferred`."""
        with self._lock:
            answer.closed = True
            self._deferred = [deferred for deferred in self._deferred if deferred[0] is not answer]
            if self._answers.pop(answer.engine_request_id, None) and self._link:
                self._link.send(Cancel(answer.engine_request_id))

    def stop(self) -> None:
        """Kill the engine process, and wait for this object's thread; unfinished answers fail."""
        self._stopping = True
        if self._process:
            self._process.kill()
        self._thread.join()

    def _connect(self) -> None:
        """Start an engine process, wait until it is ready, and send it the deferred requests."""
        command, environment = module_command(ENGINES[self._parameters.engine])
        arguments = [str(self._folder), json.dumps(asdict(self._parameters))]
        self._process = ChildProcess([*command, *arguments], environment)
        connection = self._process.connection
        try:
            ready = connection.recv()
        except (EOFError, OSError) as error:
            connection.close()
            raise EngineDown(f"The engine exited with code {self._process.wait()} while loading the model") from error
        assert isinstance(ready, Ready)  # noqa: S101
        with self._lock:
            self._link = _Link(connection)
            deferred, self._deferred, self._planned_restart = self._deferred, [], False
            for answer, prompt in deferred:
                if not answer.closed:
                    self._send(self._link, answer, prompt)

    def _run(self) -> None:
        while not self._stopping:
            self._serve()
            self._fail_all()
            if not self._stopping:
                self._restart()
        self._fail_deferred()

    def _serve(self) -> None:
        """Handle the engine's messages until its process exits."""
        link = self._link
        while link is not None:
            try:
                message: StepResult | Failed | ReadyToRestart = link.connection.recv()
            except (EOFError, OSError):
                return
            if isinstance(message, Failed):
                self._fail(message)
            elif isinstance(message, ReadyToRestart):
                self._allow_restart(link)
            else:
                self.gauges = message.gauges
                self._advance(message)

    def _allow_restart(self, link: _Link) -> None:
        """Begin a planned restart if the engine has no requests.

        The engine is shut down, and requests submitted meanwhile are deferred until the next engine is ready.
        """
        with self._lock:
            if not self._answers:
                self._planned_restart = True
                link.send(Shutdown())

    def _fail_deferred(self) -> None:
        with self._lock:
            deferred, self._deferred, self._planned_restart = self._deferred, [], False
        for answer, _ in deferred:
            answer.fail(EngineDown("The model's engine is restarting"))
        self._on_progress([answer for answer, _ in deferred])

    def _advance(self, result: StepResult) -> None:
        progressed = []
        with self._lock:
            for new in result.new_tokens:
                if answer := self._answers.get(new.request_id):
                    answer.add(*new[1:])
                    progressed.append(answer)
                    if new.finish_reason:
                        del self._answers[new.request_id]
        self._on_progress(progressed)

    def _fail(self, failed: Failed) -> None:
        with self._lock:
            answer = self._answers.pop(failed.request_id, None)
        if answer:
            kind = InvalidRequest if failed.is_client_error else EngineFailure
            answer.fail(kind(failed.message, failed.param))
            self._on_progress([answer])

    def _fail_all(self) -> None:
        with self._lock:
            if self._link:
                self._link.close()
            lost, self._answers, self._link = list(self._answers.values()), {}, None
        self.gauges = Gauges()
        for answer in lost:
            answer.fail(EngineDown("The model's engine stopped"))
        self._on_progress(lost)

    def _restart(self) -> None:
        assert self._process is not None  # noqa: S101
        exit_code = self._process.wait()
        if self._planned_restart and exit_code == 0:
            log.info("restarting the engine to free its compiled grammars")
        else:
            log.error("the engine exited with code %s; restarting it", exit_code)
        pause = 0.5
        while not self._stopping:
            try:
                self._connect()
            except Exception as error:
                # Retry: the cause may be temporary, such as a lack of memory, and no other thread restarts the engine.
                log.error("%s; retrying in %.1f s", error, pause)
                self._fail_deferred()
                time.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                log.info("the engine has restarted")
                return


def _generate_message(answer: GeneratedText, prompt: Prompt) -> Generate | GenerateWithImages:
    if prompt.text:
        return GenerateWithImages(
            answer.engine_request_id,
            answer.client,
            prompt.text,
            prompt.rgb_images,
            answer.parameters,
            prompt.remaining_context,
        )
    return Generate(
        answer.engine_request_id,
        answer.client,
        prompt.ids,
        answer.parameters,
        prompt.remaining_context,
        prompt.embeddings,
    )
