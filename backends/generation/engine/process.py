"""The engine process: one thread steps OpenVINO GenAI's continuous batching pipeline for all requests.

The engine needs a process of its own: `step()` holds the GIL from beginning to end, so in a shared process, the backend
could not receive, send or cancel anything during a step. The engine talks to `client.py` over a socket: it receives
requests between steps, and sends the new tokens after each step. It exits when the socket closes or the backend sends
Shutdown.
"""

import json
import logging
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

from backends.common.errors import InvalidRequest
from backends.generation.engine.fair_queue import FairQueue
from backends.generation.engine.ipc import (
    Cancel,
    Failed,
    Gauges,
    Generate,
    GenerateWithImages,
    NewTokens,
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
from backends.generation.engine.prefix_mirror import PrefixMirror
from backends.generation.engine.startup import serve
from backends.generation.grammar.compiler import GrammarCompiler
from backends.generation.grammar.trial import UNAVAILABLE
from contract.parameters import GenerationParameters

log = logging.getLogger(__name__)

_FINISH_REASONS = {genai.GenerationFinishReason.STOP: "stop", genai.GenerationFinishReason.LENGTH: "length"}


# Compiled grammars, about 0.8 MB each, are never freed. After _RESTART_GRAMMARS grammars, the engine offers to be
# restarted as soon as it is idle. If it is never idle, it rejects new grammars after _MAX_GRAMMARS.
_RESTART_GRAMMARS, _MAX_GRAMMARS = 400, 2000

# A prompt waits outside of the pipeline while those in the pipeline have enough tokens for this many steps. In the
# pipeline, a prompt must be computed completely, even if its request is cancelled: otherwise, the prefix cache would
# offer blocks whose keys and values were never computed, and a later request with the same prompt would get garbage.
_PREFILL_STEPS = 2

# While a new grammar waits to be compiled, requests whose grammars are already compiled can still start, but only for
# this many seconds. After that, these requests wait too. Compilation begins as soon as every started request with a
# grammar has its first token.
_COMPILE_INTERVAL = 0.5


class Engine:
    """The loop that receives requests, steps the pipeline, and sends new tokens to the backend."""

    def __init__(
        self,
        pipeline: genai.ContinuousBatchingPipeline,
        end_tokens: list[int],
        socket: Connection,
        compiler: GrammarCompiler,
        slots: int,
        num_draft_tokens: int,
        max_batch: int,
        num_blocks: int = 0,
    ):
        self._mirror = PrefixMirror(num_blocks)
        self._cached: dict[int, int | None] = {}  # IDs of requests without a token → cached tokens of their prompts
        self._ending: list[int] = []  # IDs of cancelled requests, which end with the next step
        self._pipeline, self._end_tokens, self._socket = pipeline, end_tokens, socket
        # Through this pipe, the compiler's thread wakes the loop, which may be waiting for a message.
        self._woken, self._waker = Pipe(duplex=False)
        self._poll = select.poll()
        for end in (self._socket, self._woken):
            self._poll.register(end, select.POLLIN)
        self._compiler = compiler
        self._queue = FairQueue[Generate | GenerateWithImages](slots)
        self._num_draft_tokens = num_draft_tokens
        self._max_prefill = _PREFILL_STEPS * max_batch
        self._prefilling: dict[int, int] = {}  # IDs of started requests without a token → tokens of their prompts
        self._cancelled: set[int] = set()  # those of them that were cancelled
        self._next_compile_at = 0.0
        self._compiling: str | None = None
        self._shutdown_requested = self._restart_offered = False
        self._grammars: dict[str, str | None] = {}  # grammar → why it was rejected, or None if it was compiled
        self._awaiting_grammar: deque[Generate | GenerateWithImages] = deque()
        self._admitted_waiting: list[
            Generate | GenerateWithImages
        ] = []  # requests that hold a slot and wait for a grammar that is being compiled, or for other prompts
        self._awaiting_first_token: set[int] = set()  # IDs of started requests with a grammar and no token yet
        self._handles: dict[int, Any] = {}
        self._wants_logprobs: set[int] = set()  # IDs of requests that ask for log probabilities
        self._awaiting_images: dict[int, GenerateWithImages] = {}
        self._next_prefill_at = 0.0
        self._failed: list[Failed] = []
        self._reported = Gauges()

    def run(self) -> None:
        """Serve until the backend sends Shutdown. Raises EOFError or OSError when the socket closes."""
        while not self._shutdown_requested:
            self._admit()
            can_compile = bool(self._awaiting_grammar) and not self._compiling
            idle = not (self._busy() or self._reported.running or can_compile)
            if (
                idle
                and not (self._awaiting_grammar or self._restart_offered)
                and len(self._grammars) >= _RESTART_GRAMMARS
            ):
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
            new_tokens, gauges = self._collect(), self._gauges()
            if new_tokens or gauges[:2] != self._reported[:2]:
                self._socket.send(StepResult(new_tokens, gauges))
                self._reported = gauges
            while self._failed:
                self._socket.send(self._failed.pop())

    def _busy(self) -> bool:
        return bool(self._failed or self._awaiting_images) or self._pipeline.has_non_finished_requests()

    def _receive(self, message: Generate | GenerateWithImages | Cancel | Shutdown) -> None:
        self._restart_offered = False  # a message ends the idle period; the engine repeats its offer when idle again
        if isinstance(message, Shutdown):
            self._shutdown_requested = True
            return
        if isinstance(message, Cancel):
            self._awaiting_grammar = deque(
                other for other in self._awaiting_grammar if other.request_id != message.request_id
            )
            self._awaiting_images.pop(message.request_id, None)
            if message.request_id in self._prefilling:
                self._cancelled.add(message.request_id)
            elif handle := self._remove(message.request_id):
                handle.cancel()
        elif message.parameters.get("grammar"):
            if not self._awaiting_grammar:
                self._next_compile_at = time.monotonic() + _COMPILE_INTERVAL
            self._awaiting_grammar.append(message)
        else:
            self._queue.add(message)
            self._admit()

    def _admit(self) -> None:
        """Assign free slots to queued requests and start these requests.

        While `_grammars_blocked()` is true, a request with a grammar gets a slot but does not start yet. Neither does a
        request without images while the pipeline has enough prompts to compute.
        """
        while message := self._queue.next():
            self._admitted_waiting.append(message)
        waiting, self._admitted_waiting = self._admitted_waiting, []
        for message in waiting:
            is_blocked = bool(message.parameters.get("grammar")) and self._grammars_blocked()
            has_prompts = isinstance(message, Generate) and sum(self._prefilling.values()) >= self._max_prefill
            if is_blocked or has_prompts:
                self._admitted_waiting.append(message)
            else:
                self._start_request(message)

    def _grammars_blocked(self) -> bool:
        """Return whether requests with a grammar must wait, because a compilation is running or due.

        The step that generates a request's first token looks up the request's grammar. During a compilation, the
        lookup would delay that step, and with it all requests, until the compilation ends.
        """
        return bool(self._compiling or (self._awaiting_grammar and time.monotonic() > self._next_compile_at))

    def _start_request(self, message: Generate | GenerateWithImages) -> None:
        if message.parameters.get("grammar"):
            self._awaiting_first_token.add(message.request_id)
        if isinstance(message, Generate):
            self._add(message, openvino.Tensor(np.frombuffer(message.prompt_ids, dtype=np.int64).reshape(1, -1)))
        elif message.rgb_images:
            self._awaiting_images[message.request_id] = message
        else:
            self._add(message, message.text, [])

    def _on_compiled(self, grammar: str, reason: str | None) -> None:
        self._waker.send((grammar, reason))

    def _finish_compile(self, result: tuple[str, str | None]) -> None:
        grammar, reason = result
        self._compiling = None
        if reason == UNAVAILABLE:
            for message in [each for each in self._awaiting_grammar if each.parameters["grammar"] == grammar]:
                self._awaiting_grammar.remove(message)
                self._fail(message.request_id, UNAVAILABLE)
        else:
            self._grammars[grammar] = reason
        self._next_compile_at = time.monotonic() + _COMPILE_INTERVAL

    def _start_compile(self) -> None:
        """Queue requests with compiled grammars, fail requests with rejected grammars, and start the next compilation.

        Does nothing while a compilation is running. A compilation starts only when no started request with a grammar is
        waiting for its first token.
        """
        if self._compiling:
            return
        waiting, self._awaiting_grammar = self._awaiting_grammar, deque()
        for message in waiting:
            grammar = message.parameters["grammar"]
            if grammar not in self._grammars and len(self._grammars) >= _MAX_GRAMMARS:
                self._fail(
                    message.request_id,
                    f"The engine has reached its limit of {_MAX_GRAMMARS:,} compiled grammars; retry later",
                )
            elif grammar not in self._grammars:
                self._awaiting_grammar.append(message)
            elif reason := self._grammars[grammar]:
                param = message.parameters.get("constraint", {}).get("param")
                self._fail(message.request_id, reason, is_client_error=True, param=param)
            else:
                self._queue.add(message)
        self._admit()
        if self._awaiting_grammar and not self._awaiting_first_token:
            self._compiling, client = self._awaiting_grammar[0].parameters["grammar"], self._awaiting_grammar[0].client
            self._awaiting_grammar = deque(
                sorted(self._awaiting_grammar, key=lambda message: message.client == client)
            )  # so that the grammars of other clients are compiled next
            self._compiler.start(self._compiling, self._on_compiled)

    def _prefill_images(self) -> None:
        """Add the oldest request with images to the pipeline, unless the requests in the pipeline must run first.

        Encoding images takes far longer than a step, and the engine does nothing else in the meantime. Requests with
        images are therefore added one at a time. After each of them, the requests in the pipeline run for as long as
        the encoding took. Encoded images stay in memory, so no request with images is added while any request in the
        pipeline waits to be scheduled.
        """
        waiting = len(self._handles) > self._pipeline.get_metrics().scheduled_requests
        if self._pipeline.has_non_finished_requests() and (waiting or time.monotonic() < self._next_prefill_at):
            return
        message = self._awaiting_images.pop(next(iter(self._awaiting_images)))
        started = time.monotonic()
        self._add(message, message.text, [image_tensor(rgb_image) for rgb_image in message.rgb_images])
        self._next_prefill_at = 2 * time.monotonic() - started

    def _add(self, message: Generate | GenerateWithImages, *prompt: Any) -> None:
        try:
            config = build_config(
                message.parameters, message.remaining_context, self._end_tokens, self._num_draft_tokens
            )
            self._handles[message.request_id] = self._pipeline.add_request(message.request_id, *prompt, config)
            if isinstance(message, Generate):
                ids = np.frombuffer(message.prompt_ids, np.int64)
                self._cached[message.request_id] = self._mirror.start(message.request_id, ids)
            self._prefilling[message.request_id] = len(message.prompt_ids) // 8 if isinstance(message, Generate) else 0
            if message.parameters.get("logprobs"):
                self._wants_logprobs.add(message.request_id)
        except InvalidRequest as error:
            self._fail(message.request_id, str(error), is_client_error=True)
        except Exception:
            log.exception("the engine rejected a request")
            self._fail(message.request_id, "The model failed on this request")

    def _step(self) -> None:
        try:
            self._pipeline.step()
            ended, self._ending = self._ending, []
            for request_id in ended:
                self._mirror.end(request_id)
        except Exception:
            log.exception("a step failed; failing its %d requests", len(self._handles))
            self._mirror = PrefixMirror(0)  # what the failed step has computed is unknown
            for request_id in list(self._handles):
                self._fail(request_id, "The model failed on this request")

    def _collect(self) -> list[NewTokens]:
        """Return all new tokens, remove finished requests, and fail requests that the KV cache cannot hold."""
        new_tokens = []
        for request_id, handle in list(self._handles.items()):
            if handle.can_read():
                self._awaiting_first_token.discard(request_id)
                self._prefilling.pop(request_id, None)
            if request_id in self._cancelled and request_id not in self._prefilling:
                self._mirror.add_tokens(request_id, [0])  # the token does not matter: it has not been computed
                self._remove(request_id)
                handle.cancel()
                continue
            while handle.can_read():
                for output in handle.read().values():
                    finish_reason = _FINISH_REASONS.get(output.finish_reason)
                    logprobs = list(output.generated_log_probs) if request_id in self._wants_logprobs else []
                    ids, cached = list(output.generated_ids), self._cached.pop(request_id, None)
                    new_tokens.append(NewTokens(request_id, ids, finish_reason, logprobs, cached_tokens=cached))
                    self._mirror.add_tokens(request_id, ids)
                    if finish_reason:
                        self._mirror.end(request_id)
                        self._remove(request_id)
            if handle.get_status() == genai.GenerationStatus.IGNORED:
                message = "The request does not fit into the model's KV cache; increase --kv-cache-gb"
                self._fail(request_id, message)
        return new_tokens

    def _fail(self, request_id: int, message: str, is_client_error: bool = False, param: str | None = None) -> None:
        if handle := self._remove(request_id):
            handle.cancel()
        self._failed.append(Failed(request_id, message, is_client_error, param))

    def _remove(self, request_id: int) -> Any:
        """Remove a request and return its handle, if any. `_awaiting_grammar` and `_awaiting_images` do not change."""
        self._queue.remove(request_id)
        self._admitted_waiting = [message for message in self._admitted_waiting if message.request_id != request_id]
        self._awaiting_first_token.discard(request_id)
        self._wants_logprobs.discard(request_id)
        self._cancelled.discard(request_id)
        self._prefilling.pop(request_id, None)
        self._cached.pop(request_id, None)
        handle = self._handles.pop(request_id, None)
        if handle:
            self._ending.append(request_id)
        return handle

    def _gauges(self) -> Gauges:
        metrics = self._pipeline.get_metrics()
        not_started = (
            len(self._queue) + len(self._admitted_waiting) + len(self._awaiting_images) + len(self._awaiting_grammar)
        )
        waiting = not_started + max(0, len(self._handles) - metrics.scheduled_requests)
        return Gauges(metrics.scheduled_requests if self._handles else 0, waiting, metrics.cache_usage / 100)


def main() -> None:
    """Load the model and serve. The command line is `process.py FOLDER PARAMETERS_JSON FILE_DESCRIPTOR`."""
    folder, parameters = Path(sys.argv[1]), GenerationParameters(**json.loads(sys.argv[2]))

    def open_engine(socket: Connection) -> Engine:
        end_tokens = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
        tokenizer = genai.Tokenizer(str(folder))
        pipeline = load_pipeline(folder, parameters, tokenizer)
        num_draft_tokens = configured_draft_tokens(folder, parameters)
        num_blocks = warm_up(pipeline, end_tokens, has_vision_tower(folder), num_draft_tokens)
        compiler = GrammarCompiler(folder, tokenizer, end_tokens[0])
        return Engine(
            pipeline,
            end_tokens,
            socket,
            compiler,
            parameters.max_num_seqs,
            num_draft_tokens,
            parameters.max_num_batched_tokens,
            # Prompt lookup computes tokens that are not in the answer.
            0 if num_draft_tokens else num_blocks,
        )

    serve(folder, open_engine)


if __name__ == "__main__":
    main()
