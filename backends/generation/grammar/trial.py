"""Tries grammars in a process of their own.

Some grammars take too long to compile or to generate a token with, and some crash the process that uses them. Therefore
a trial process generates tokens with each grammar before an engine uses it.
"""

import logging
import os
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import psutil

from backends.common.child_process import ChildProcess, module_command

log = logging.getLogger(__name__)

NICE = 15
"""The nice value of the trial process, and of threads that compile. An engine's threads take precedence over them."""

# The limits of a trial, which compiles a grammar and generates tokens with it. The limit in wall-clock seconds is
# higher, because other processes may use most of the CPU.
_CPU_SECONDS, _SECONDS = 4.0, 60.0
_START_SECONDS = 60.0
_MEMORY = 8 << 30

# The trial process is replaced after this many grammars, because their compiled forms may stay in its memory.
_MAX_TRIALS = 400


UNAVAILABLE = "The grammar could not be tried; retry later"
"""The reason if a trial has no result, through no fault of the grammar."""


class Trial:
    """Tries grammars in a process that runs a module. The process starts with the first grammar.

    The command line of the process consists of `arguments` and the file descriptor of its socket.
    """

    def __init__(self, module: str, *arguments: str):
        self._module, self._arguments = module, arguments
        self._process: ChildProcess | None = None
        self._count = 0

    def try_grammar(self, grammar: str) -> str | None:
        """Return why the grammar is rejected, or None if it is accepted. Return UNAVAILABLE if that is not known.

        A grammar that exceeds a time limit, or crashes the process, is rejected and ends the process.
        """
        process = self._running_process()
        self._count += 1
        try:
            process.connection.send(grammar)
            if reason := self._wait_for_result(process):
                self.end()
                return reason
            result: str | None = process.connection.recv()
        except (EOFError, OSError, psutil.Error):
            self.end()
            return "The grammar could not be compiled; simplify it"
        return result

    def end(self) -> None:
        """Kill the process, if it runs, and close the connection to it."""
        if self._process:
            self._process.close()
        self._process, self._count = None, 0

    def _running_process(self) -> ChildProcess:
        if self._count >= _MAX_TRIALS:
            self.end()
        if self._process is None:
            command, environment = module_command(self._module)
            self._process = ChildProcess([*command, *self._arguments], environment)
            if not self._process.connection.poll(_START_SECONDS):
                self.end()
                raise TimeoutError("the process that tries grammars did not start in time")
            self._process.connection.recv()
        return self._process

    def _wait_for_result(self, trial: ChildProcess) -> str | None:
        """Wait for a result. If there is none within the limits of CPU time and wall-clock time, return the reason."""
        deadline, process = time.monotonic() + _SECONDS, psutil.Process(trial.pid)
        used = sum(process.cpu_times()[:2])
        while time.monotonic() < deadline:
            if trial.connection.poll(0.1):
                return None
            if sum(process.cpu_times()[:2]) - used > _CPU_SECONDS:
                return "The grammar takes too long to compile or to apply"
        return UNAVAILABLE  # other processes have used the CPU


def run_trial_process(connection: Connection, try_grammar: Callable[[str], str | None]) -> None:
    """In the trial process: try the grammars that arrive until the connection closes.

    `try_grammar` returns why a grammar is rejected, or None.
    """
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    connection.send(None)
    try:
        while True:
            connection.send(try_grammar(connection.recv()))
    except (EOFError, OSError):
        log.info("engine disconnected; exiting")
