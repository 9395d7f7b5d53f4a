"""The engine's side of a process that runs a speech model in a Python environment of its own, which has torch."""

import logging
import os
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from backends.common.child_process import ChildProcess
from backends.common.errors import EngineDown, EngineFailure
from contract.parameters import SpeechParameters

log = logging.getLogger(__name__)

# How long the process may take to start, and to answer a call: it computes at most one piece of text at a time.
_START_SECONDS, _SECONDS = 900.0, 300.0


class SpeakerProcess:
    """Calls the methods of the `Speaker` in a script, which runs in the environment that the parameters name.

    If the process dies or does not answer, the current request fails, and the next call starts another process.
    """

    def __init__(self, script: Path, folder: Path, parameters: SpeechParameters):
        environments = os.environ.get("TRIDENT_ENVIRONMENTS", "")
        python = Path(environments) / parameters.environment / "bin" / "python"
        if not (environments and python.exists()):
            raise EngineDown(f"{python} not found; TRIDENT_ENVIRONMENTS must name the folder of Python environments")
        self._command = [str(python), str(script), str(folder), str(parameters.threads)]
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._connection: Connection | None = None
        self.description = self._start()
        """What the speaker says about the model."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `Speaker`.

        Raises EngineFailure if the method fails, or EngineDown if the process died.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._start()
                assert self._connection is not None  # noqa: S101
                self._connection.send((method, arguments))
                if not self._connection.poll(_SECONDS):
                    raise OSError("no answer")
                succeeded, result = self._connection.recv()
            except (EOFError, OSError) as error:
                self._drop()
                raise EngineDown("The model's process died or hung; the next request restarts it") from error
        if not succeeded:
            log.error("%s failed: %s", method, result)
            raise EngineFailure("The model failed on this request")
        return result

    def _start(self) -> dict[str, Any]:
        # The child process runs a different Python from Triton's stub, so it must not inherit the stub's library paths.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "PYTHON"))}
        self._process = ChildProcess(self._command, environment)
        self._connection = self._process.connection
        try:
            if not self._connection.poll(_START_SECONDS):
                raise EOFError
            description: dict[str, Any] = self._connection.recv()
        except EOFError:
            self._drop()
            raise EngineDown("The model's process did not start; see the server log") from None
        return description

    def _drop(self) -> None:
        if self._process is not None:
            self._process.close()
        self._connection = self._process = None
