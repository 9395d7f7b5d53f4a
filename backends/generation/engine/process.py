"""The engine's process: OpenVINO GenAI's continuous batching, stepped for all requests by one thread.

A process of its own, because `step()` holds Python's lock from beginning to end: beside it, nothing could be read,
sent or cancelled. It talks to `client.py` over a socket: requests come in between steps, tokens go out once a
step. It ends when the socket does.
"""

import contextlib
import json
import logging
import os
import select
import sys
import time
from collections import deque
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from backends import start_logging
from backends.common.child_process import open_connection
from backends.common.errors import InvalidRequest
from backends.generation.engine.fair_queue import FairQueue
from backends.generation.engine.ipc import (
    Cancel,
    Failed,
    Gauges,
    Generate,
    GenerateWithImages,
    NewTokens,
    Ready,
    ReadyToRestart,
    Shutdown,
    StepResult,
)
from backends.generation.engine.pipeline import (
    build_config,
    configured_draft_tokens,
    has_vision_tower,
    image_tensor,
    load_pipeline,
    warm_up,
)
from backends.generation.grammar.compiler import GrammarCompiler
from contract.parameters import GenerationParameters

log = logging.getLogger(__name__)

_FINISH_REASONS = {genai.GenerationFinishReason.STOP: "stop", genai.GenerationFinishReason.LENGTH: "length"}


# Each takes the better part of a megabyte, and none is ever given back: after so many the process ends as soon as there
# is nothing to do; and if there always is, it takes no new ones in the end.
_MANY_GRAMMARS, _MAX_GRAMMARS = 400, 2000

# Seconds in which requests with grammars may begin although there is another one to be compiled.
_BETWEEN_GRAMMARS = 0.5


class Engine:
    """Requests by their numbers, from the socket into the pipeline and back."""

    def __init__(
        self,
        pipeline: genai.ContinuousBatchingPipeline,
        end_tokens: list[int],
        socket: Connection,
        compiler: GrammarCompiler,
        slots: int,
        num_draft_tokens: int,
    ):
        self._pipeline, self._end_tokens, self._socket = pipeline, end_tokens, socket
        # The compiler's thread wakes the loop, which may be waiting for a message.
        self._woken, self._waker = Pipe(duplex=False)
        self._poll = select.poll()
        for end in (self._socket, self._woken):
            self._poll.register(end, select.POLLIN)
        self._compiler = compiler
        self._queue = FairQueue[Generate | GenerateWithImages](slots)
        self._num_draft_tokens = num_draft_tokens
        self._next_compiling = 0.0
        self._compiling: str | None = None
        self._shutdown_requested = self._restart_offered = False
        self._grammars: dict[str, str | None] = {}  # and why they are refused
        self._awaiting_grammar: deque[Generate | GenerateWithImages] = deque()
        self._admitted_waiting: list[
            Generate | GenerateWithImages
        ] = []  # those that have a place and wait for a grammar, of others, to be compiled
        self._awaiting_first_token: set[int] = set()  # numbers of those that have a grammar and no token yet
        self._handles: dict[int, Any] = {}
        self._wants_logprobs: set[int] = set()  # numbers of those that want log probabilities
        self._awaiting_images: dict[int, GenerateWithImages] = {}
        self._next_prefill = 0.0
        self._failed: list[Failed] = []
        self._reported = Gauges()

    def run(self) -> None:
        """Serve until the socket closes (EOFError), or the backend lets it go."""
        while not self._shutdown_requested:
            self._admit()
            can_compile = bool(self._awaiting_grammar) and not self._compiling
            idle = not (self._busy() or self._reported.running or can_compile)
            if idle and not (self._awaiting_grammar or self._restart_offered) and len(self._grammars) >= _MANY_GRAMMARS:
                self._socket.send(ReadyToRestart())
                self._restart_offered = True
            while ready := dict(self._poll.poll(None if idle else 0)):
                if self._woken.fileno() in ready:
                    self._finish_compile(self._woken.recv())
                if self._socket.fileno() in ready:
                    self._receive(self._socket.recv())
                idle = False
            self._start_compile()
            if self._awaiting_images:
                self._prefill_images()
            if self._busy():
                self._step()
            made, gauges = self._collect(), self._gauges()
            if made or gauges[:2] != self._reported[:2]:
                self._socket.send(StepResult(made, gauges))
                self._reported = gauges
            while self._failed:
                self._socket.send(self._failed.pop())

    def _busy(self) -> bool:
        return bool(self._failed or self._awaiting_images) or self._pipeline.has_non_finished_requests()

    def _receive(self, message: Generate | GenerateWithImages | Cancel | Shutdown) -> None:
        self._restart_offered = False  # there is something to do; it says so again afterwards
        if isinstance(message, Shutdown):
            self._shutdown_requested = True
            return
        if isinstance(message, Cancel):
            self._awaiting_grammar = deque(other for other in self._awaiting_grammar if other.number != message.number)
            self._awaiting_images.pop(message.number, None)
            if handle := self._forget(message.number):
                handle.cancel()
        elif message.parameters.get("grammar"):
            if not self._awaiting_grammar:
                self._next_compiling = time.monotonic() + _BETWEEN_GRAMMARS
            self._awaiting_grammar.append(message)
        else:
            self._queue.put(message)
            self._admit()

    def _admit(self) -> None:
        """Take in those whose turn it is; who has a grammar keeps a place while none may begin with one."""
        if not self._grammars_wait():
            waiting, self._admitted_waiting = self._admitted_waiting, []
            for each in waiting:
                self._begin(each)
        while message := self._queue.take():
            if message.parameters.get("grammar") and self._grammars_wait():
                self._admitted_waiting.append(message)
            else:
                self._begin(message)

    def _grammars_wait(self) -> bool:
        """Tell whether nobody with a grammar may begin: while one is compiled, or one should be.

        A first token asks for its grammar, and would wait, with all others, for the one that is being compiled.
        """
        return bool(self._compiling or (self._awaiting_grammar and time.monotonic() > self._next_compiling))

    def _begin(self, message: Generate | GenerateWithImages) -> None:
        if message.parameters.get("grammar"):
            self._awaiting_first_token.add(message.number)
        if isinstance(message, Generate):
            self._add(message, openvino.Tensor(np.frombuffer(message.prompt_ids, dtype=np.int64).reshape(1, -1)))
        elif message.rgb_images:
            self._awaiting_images[message.number] = message
        else:
            self._add(message, message.text, [])

    def _on_compiled(self, grammar: str, reason: str | None) -> None:
        self._waker.send((grammar, reason))

    def _finish_compile(self, result: tuple[str, str | None]) -> None:
        grammar, reason = result
        self._grammars[grammar], self._compiling = reason, None
        self._next_compiling = time.monotonic() + _BETWEEN_GRAMMARS

    def _start_compile(self) -> None:
        """Let those whose grammars are compiled wait for their turn, and have the next grammar compiled.

        Before that all that have begun with a grammar have their first token.
        """
        if self._compiling:
            return
        waiting, self._awaiting_grammar = self._awaiting_grammar, deque()
        for message in waiting:
            grammar = message.parameters["grammar"]
            if grammar not in self._grammars and len(self._grammars) >= _MAX_GRAMMARS:
                self._fail(message.number, "The engine has too many grammars in memory just now")
            elif grammar not in self._grammars:
                self._awaiting_grammar.append(message)
            elif reason := self._grammars[grammar]:
                param = message.parameters.get("constraint", {}).get("param")
                self._fail(message.number, reason, is_client_error=True, param=param)
            else:
                self._queue.put(message)
        self._admit()
        if self._awaiting_grammar and not self._awaiting_first_token:
            self._compiling, client = self._awaiting_grammar[0].parameters["grammar"], self._awaiting_grammar[0].client
            self._awaiting_grammar = deque(
                sorted(self._awaiting_grammar, key=lambda message: message.client == client)
            )  # others next
            self._compiler.start(self._compiling, self._on_compiled)

    def _prefill_images(self) -> None:
        """Take in the first request with pictures, unless the answers of others have their turn, or wait for theirs.

        Nothing else happens while the engine looks at pictures, and that takes far longer than a step. So it is done
        for one request at a time, after which the others have as much time. What it has seen it keeps in memory.
        """
        waiting = len(self._handles) > self._pipeline.get_metrics().scheduled_requests
        if self._pipeline.has_non_finished_requests() and (waiting or time.monotonic() < self._next_prefill):
            return
        message = self._awaiting_images.pop(next(iter(self._awaiting_images)))
        begun = time.monotonic()
        self._add(message, message.text, [image_tensor(rgb_image) for rgb_image in message.rgb_images])
        self._next_prefill = 2 * time.monotonic() - begun

    def _add(self, message: Generate | GenerateWithImages, *prompt: Any) -> None:
        try:
            config = build_config(
                message.parameters, message.remaining_context, self._end_tokens, self._num_draft_tokens
            )
            self._handles[message.number] = self._pipeline.add_request(message.number, *prompt, config)
            if message.parameters.get("logprobs"):
                self._wants_logprobs.add(message.number)
        except InvalidRequest as error:
            self._fail(message.number, str(error), is_client_error=True)
        except Exception:
            log.exception("the engine does not take a request")
            self._fail(message.number, "The engine does not take the request")

    def _step(self) -> None:
        try:
            self._pipeline.step()
        except Exception:
            log.exception("a step failed; %d requests are lost", len(self._handles))
            for number in list(self._handles):
                self._fail(number, "The engine failed")

    def _collect(self) -> list[NewTokens]:
        """Return what the last step made."""
        made = []
        for number, handle in list(self._handles.items()):
            while handle.can_read():
                self._awaiting_first_token.discard(number)
                for output in handle.read().values():
                    finish_reason = _FINISH_REASONS.get(output.finish_reason)
                    logprobs = list(output.generated_log_probs) if number in self._wants_logprobs else []
                    made.append(NewTokens(number, list(output.generated_ids), logprobs, finish_reason))
                    if finish_reason:
                        self._forget(number)
            if handle.get_status() == genai.GenerationStatus.IGNORED:
                self._fail(number, "The conversation does not fit into the model's KV cache; raise cache_size_gb.")
        return made

    def _fail(self, number: int, message: str, is_client_error: bool = False, param: str | None = None) -> None:
        if handle := self._forget(number):
            handle.cancel()
        self._failed.append(Failed(number, message, is_client_error, param))

    def _forget(self, number: int) -> Any:
        """Return the handle of a request that is over, if the engine has one."""
        self._queue.end(number)
        self._admitted_waiting = [message for message in self._admitted_waiting if message.number != number]
        self._awaiting_first_token.discard(number)
        self._wants_logprobs.discard(number)
        return self._handles.pop(number, None)

    def _gauges(self) -> Gauges:
        now = self._pipeline.get_metrics()
        not_begun = (
            len(self._queue) + len(self._admitted_waiting) + len(self._awaiting_images) + len(self._awaiting_grammar)
        )
        waiting = not_begun + max(0, len(self._handles) - now.scheduled_requests)
        return Gauges(now.scheduled_requests if self._handles else 0, waiting, now.cache_usage / 100)


def main() -> None:
    """Load the model and serve: `process.py FOLDER PARAMETERS_JSON CONNECTION`."""
    folder, parameters = Path(sys.argv[1]), GenerationParameters(**json.loads(sys.argv[2]))
    with contextlib.suppress(OSError):  # the launcher's other processes give way to it, where they may
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    start_logging(f"{folder.parent.name} engine")
    socket = open_connection()
    end_tokens = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    tokenizer = genai.Tokenizer(str(folder))
    pipeline = load_pipeline(folder, parameters, tokenizer)
    num_draft_tokens = configured_draft_tokens(folder, parameters)
    warm_up(pipeline, end_tokens, has_vision_tower(folder), num_draft_tokens)
    compiler = GrammarCompiler(folder, tokenizer, end_tokens[0])
    engine = Engine(pipeline, end_tokens, socket, compiler, parameters.max_num_seqs, num_draft_tokens)
    socket.send(Ready())
    try:
        engine.run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        log.info("the backend is gone; so am I")


if __name__ == "__main__":
    main()
