"""The engine process of GGUF models: one thread computes all requests in batches, with llama.cpp.

It receives the same messages as the OpenVINO engine (see ../engine/process.py), and sends the same ones.
"""

import json
import logging
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np

from backends.common.errors import InvalidRequest
from backends.common.llamacpp.context import KEPT_SEQUENCES, LlamaContext, NoSpace, Piece
from backends.common.llamacpp.library import MAX_SEQUENCES
from backends.common.llamacpp.media.assembly import Embeddings
from backends.generation.engine.fair_queue import FairQueue
from backends.generation.engine.ipc import (
    Cancel,
    Failed,
    Gauges,
    Generate,
    GenerateWithImages,
    NewTokens,
    Shutdown,
    StepResult,
    TokenScore,
)
from backends.generation.engine.startup import serve
from backends.generation.grammar.trial import UNAVAILABLE
from backends.generation.llamacpp.grammar import Grammar
from backends.generation.llamacpp.grammar_trial import GrammarTrials
from backends.generation.llamacpp.kv_cache import CacheFull, KVCache, KVSequence, Tokens, common_prefix
from backends.generation.llamacpp.sampler import Choice, InvalidLogits, Logits, Sampler
from contract.parameters import GenerationParameters

log = logging.getLogger(__name__)

_FAILED = "The model failed on this request"


@dataclass(eq=False)
class _Request:
    """A request that is being computed. `tokens` are those of the prompt and of the answer so far."""

    message: Generate
    prompt: Tokens
    tokens: list[int]
    sampler: Sampler
    max_tokens: int
    sequence: KVSequence
    num_cached: int
    num_generated: int = 0
    reported: bool = False
    scores: dict[int, TokenScore] | None = None
    """The log probabilities of the prompt's tokens by their positions, if they are requested."""

    @property
    def adapter(self) -> str:
        """The name of the adapter with which the model computes the request; empty without one."""
        return adapter_of(self.message)

    @property
    def pending(self) -> int:
        """How many tokens must be computed before the next one can be chosen."""
        return len(self.tokens) - self.sequence.length

    @property
    def next_embeddings(self) -> Embeddings | None:
        """The embeddings that must be computed next, if the prompt continues with some."""
        at = self.sequence.length
        return next(
            (each for each in self.message.embeddings if each.start <= at < each.start + len(each.values)), None
        )

    @property
    def tokens_before_embeddings(self) -> int:
        """How many tokens can be computed before embeddings must be."""
        at = self.sequence.length
        starts = [each.start for each in self.message.embeddings if each.start >= at]
        return min(starts, default=len(self.tokens)) - at

    @property
    def needs_scores(self) -> bool:
        """Whether log probabilities of the prompt's tokens are still missing."""
        return self.scores is not None and len(self.scores) < len(self.prompt)


def adapter_of(message: Generate) -> str:
    """Return the name of a request's adapter; empty without one."""
    return str(message.parameters.get("adapter") or "")


class Engine:
    """The loop that receives requests, computes batches, and sends new tokens to the backend."""

    def __init__(
        self,
        context: LlamaContext,
        socket: Connection,
        trials: GrammarTrials,
        *,
        slots: int,
        max_batch: int,
        saved_bytes: int,
    ):
        self._context, self._socket, self._max_batch = context, socket, max_batch
        self._end_tokens = frozenset(context.end_tokens.tolist())
        self._cache = KVCache(
            context,
            context.cells,
            context.max_sequences,
            saved_bytes=saved_bytes,
            shares_prefixes=context.shares_prefixes,
        )
        self._queue = FairQueue[Generate](slots)
        self._requests: dict[int, _Request] = {}
        self._admitted: list[Generate] = []  # these hold a slot, and wait for free cells or for a shared prompt
        self._paused: list[_Request] = []  # these have lost their cells, and wait for others
        self._may_admit = False
        self._trials, self._awaiting_trial = trials, list[Generate]()
        self._woken, self._waker = Pipe(duplex=False)
        self._poll = select.poll()
        for end in (socket, self._woken):
            self._poll.register(end, select.POLLIN)
        self._failed: list[Failed] = []
        self._reported = Gauges()
        self._shutdown_requested = False

    def run(self) -> None:
        """Serve until the backend sends Shutdown. Raises EOFError or OSError when the socket closes."""
        while not self._shutdown_requested:
            idle = not (self._requests or self._admitted or self._paused or self._failed or self._reported.running)
            while ready := dict(self._poll.poll(None if idle else 0)):
                if self._woken.fileno() in ready:
                    self._finish_trial(*self._woken.recv())
                if self._socket.fileno() in ready:
                    self._receive(self._socket.recv())
                idle = False
            self._admit()
            new_tokens = self._step() if self._requests else []
            gauges = self._gauges()
            if new_tokens or gauges[:2] != self._reported[:2]:
                self._socket.send(StepResult(new_tokens, gauges))
                self._reported = gauges
            while self._failed:
                self._socket.send(self._failed.pop())

    def _receive(self, message: Generate | GenerateWithImages | Cancel | Shutdown) -> None:
        if isinstance(message, Shutdown):
            self._shutdown_requested = True
        elif isinstance(message, Cancel):
            self._awaiting_trial = [each for each in self._awaiting_trial if each.request_id != message.request_id]
            self._remove(message.request_id)
        elif isinstance(message, GenerateWithImages):
            self._fail(message.request_id, "This model does not accept images", is_client_error=True)
        elif message.parameters.get("grammar"):
            self._awaiting_trial.append(message)
            self._start_trial()
        else:
            self._queue.add(message)

    def _start_trial(self) -> None:
        """Queue the requests whose grammars have been tried, fail those with rejected ones, and try the next one."""
        waiting, self._awaiting_trial = self._awaiting_trial, []
        for message in waiting:
            grammar = message.parameters["grammar"]
            if grammar not in self._trials.results:
                self._awaiting_trial.append(message)
            elif reason := self._trials.results[grammar]:
                param = message.parameters.get("constraint", {}).get("param")
                self._fail(message.request_id, reason, is_client_error=True, param=param)
            else:
                self._queue.add(message)
        if self._awaiting_trial and not self._trials.is_busy:
            self._trials.start(self._awaiting_trial[0].parameters["grammar"], self._on_tried)

    def _on_tried(self, grammar: str, reason: str | None) -> None:
        self._waker.send((grammar, reason))

    def _finish_trial(self, grammar: str, reason: str | None) -> None:
        self._trials.finish(grammar, reason)
        if reason == UNAVAILABLE:
            for each in [each for each in self._awaiting_trial if each.parameters["grammar"] == grammar]:
                self._awaiting_trial.remove(each)
                self._fail(each.request_id, UNAVAILABLE)
        # Requests of other clients first, so that one client's grammars do not delay theirs.
        last = next((each.client for each in self._awaiting_trial if each.parameters["grammar"] == grammar), None)
        self._awaiting_trial.sort(key=lambda each: each.parameters["grammar"] != grammar and each.client == last)
        self._start_trial()

    def _admit(self) -> None:
        """Give free slots to queued requests, and start those whose prompts fit into the KV cache."""
        while message := self._queue.next():
            self._admitted.append(message)
            self._may_admit = True
        if not self._may_admit:
            return
        paused, self._paused = self._paused, []
        for request in paused:
            if self._requests and not self._fits(np.array(request.tokens, np.int32), request.adapter):
                self._paused.append(request)
            else:
                shares = not request.needs_scores
                request.sequence = self._cache.start(request.tokens, request.adapter, shares=shares)
                self._requests[request.message.request_id] = request
        waiting, self._admitted, self._may_admit = self._admitted, [], False
        for message in waiting:
            if not self._start(message):
                self._admitted.append(message)

    def _start(self, message: Generate) -> bool:
        """Start a request. Return whether it has started or failed; otherwise, it must wait for free cells."""
        prompt, adapter = np.frombuffer(message.prompt_ids, np.int64).astype(np.int32), adapter_of(message)
        if adapter and adapter not in self._context.adapters:
            self._fail(
                message.request_id, f"This model has no adapter '{adapter}'", is_client_error=True, param="model"
            )
            return True
        if not len(prompt) or prompt[-1] < 0:
            text = "The prompt must not be empty, and must end with text"
            self._fail(message.request_id, text, is_client_error=True)
            return True
        if len(prompt) + 1 > self._context.cells:
            self._fail_full(message)
            return True
        if self._paused or (self._requests and not self._fits(prompt, adapter)):
            return False
        try:
            sampler = self._sampler(message, prompt[prompt >= 0].tolist())
            limit = min(message.parameters.get("max_tokens") or message.remaining_context, message.remaining_context)
        except (InvalidRequest, ValueError) as error:
            self._fail(message.request_id, str(error), is_client_error=True)
            return True
        except Exception:  # whatever is wrong with one request must not end the others
            log.exception("the engine rejected a request")
            self._fail(message.request_id, _FAILED)
            return True
        wants_scores = message.parameters.get("echo") and message.parameters.get("logprobs")
        sequence = self._cache.start(prompt, adapter, shares=not wants_scores)
        request = _Request(message, prompt, prompt.tolist(), sampler, limit, sequence, sequence.length)
        if wants_scores:
            request.scores = {0: TokenScore(int(prompt[0]), None)}  # nothing precedes the first token
        self._requests[message.request_id] = request
        return True

    def _fits(self, prompt: Tokens, adapter: str) -> bool:
        """Return whether there is space for a prompt, and whether no other request computes the same beginning."""
        known = self._cache.known_prefix(prompt, adapter)
        for request in [other for other in self._requests.values() if other.adapter == adapter]:
            # Once that request's prompt is computed, this one can share it.
            if request.pending > 1 and common_prefix(request.prompt, prompt) > known + self._max_batch:
                return False
        shared = self._cache.running_prefix(prompt, adapter)
        needed = sum(request.pending for request in self._requests.values()) + len(prompt) - shared + 1
        return self._cache.available >= needed

    def _sampler(self, message: Generate, prompt: Sequence[int]) -> Sampler:
        grammar = message.parameters.get("grammar")
        context, state = self._context, None
        if grammar:
            hidden = context.hidden_tokens(message.parameters.get("visible_tokens", ()))
            state = Grammar(context.llama, context.vocabulary, grammar, hidden)
        return Sampler(message.parameters, prompt, context.end_tokens, state)

    def _step(self) -> list[NewTokens]:
        """Compute a batch of tokens for each adapter and one of embeddings, and return the tokens chosen after them.

        llama.cpp applies an adapter to all tokens of a batch.
        """
        new_tokens = []
        for adapter in dict.fromkeys(request.adapter for request in self._requests.values()):
            self._context.use_adapter(adapter)
            new_tokens += self._step_tokens(adapter)
        waiting = ((request, request.next_embeddings) for request in self._requests.values())
        if found := next(((request, embeddings) for request, embeddings in waiting if embeddings), None):
            self._step_embeddings(*found)
        return new_tokens

    def _step_embeddings(self, request: _Request, embeddings: Embeddings) -> None:
        """Compute the next embeddings of a request, at most a batch of them."""
        self._context.use_adapter(request.adapter)
        sequence = request.sequence
        start = sequence.length - embeddings.start
        end = min(start + self._max_batch, len(embeddings.values))
        is_whole = end == len(embeddings.values)
        if not (embeddings.is_causal or (is_whole and not start)):
            number = len(embeddings.values)
            text = f"The model needs all {number} embeddings of this file at once; increase 'max_num_batched_tokens'"
            self._fail(request.message.request_id, text)
            return
        positions = embeddings.positions[:, start:end]
        try:
            self._cache.reserve(end - start)
            self._context.decode_embeddings(
                sequence.id, embeddings.values[start:end], positions, is_causal=embeddings.is_causal
            )
        except (CacheFull, NoSpace):
            self._make_room()
            return
        except (RuntimeError, ValueError):
            log.exception("computing embeddings failed")
            self._fail(request.message.request_id, _FAILED)
            return
        tokens = request.tokens[sequence.length : sequence.length + end - start]
        after = embeddings.next_position if is_whole else int(embeddings.positions[0, end])
        self._cache.advance(sequence, tokens, [*positions[0].tolist(), after])
        self._may_admit |= request.pending == 1

    def _step_tokens(self, adapter: str) -> list[NewTokens]:
        pieces = self._pieces(adapter)
        if not pieces:
            return []
        try:
            logits = self._context.decode([piece for _, piece in pieces])
        except NoSpace:
            self._make_room()
            return []
        except RuntimeError:
            log.exception("a step failed; failing its %d requests", len(pieces))
            for request, _ in pieces:
                self._fail(request.message.request_id, _FAILED)
            return []
        new_tokens, row = [], 0
        for request, piece in pieces:
            is_prompt = request.pending > 1
            self._cache.advance(request.sequence, piece.tokens)
            self._may_admit |= is_prompt and request.pending == 1  # others can share this prompt now
            rows, row = logits[row : row + piece.num_outputs], row + piece.num_outputs
            try:
                if is_prompt:
                    self._score(request, piece, rows)
                elif new := self._choose(request, rows[0]):
                    new_tokens.append(new)
            except Exception:  # whatever is wrong with one request must not end the others
                log.exception("choosing a token failed")
                self._fail(request.message.request_id, _FAILED)
        return new_tokens

    @staticmethod
    def _score(request: _Request, piece: Piece, logits: Logits) -> None:
        for position, row in enumerate(logits, piece.position + 1):
            token = int(request.prompt[position])
            values, top = request.sampler.log_probabilities(row)
            if request.scores is not None:
                request.scores[position] = TokenScore(token, float(values[token]), top)

    def _pieces(self, adapter: str) -> list[tuple[_Request, Piece]]:
        """Return the next batch of the requests with this adapter.

        It has the last token of each running answer, then parts of the oldest prompts.

        The last token of a prompt comes in the batch after those before it, as it does if the others were cached.
        llama.cpp rounds differently if it computes a token together with others, so the first of two equal requests
        would often get another answer than the second one.

        A batch has at most as many outputs as there are sequences, so only one prompt at a time gets scores.
        """
        requests = [request for request in self._requests.values() if request.adapter == adapter]
        by_need = sorted(requests, key=lambda request: request.pending > 1)
        budget, pieces, scored = self._max_batch, list[tuple[_Request, Piece]](), False
        for request in by_need:
            if not budget:
                break
            length = min(request.pending - 1 or 1, budget, request.tokens_before_embeddings)
            if not length or request.next_embeddings:
                continue
            is_prompt, needs_scores = request.pending > 1, request.needs_scores
            if is_prompt and needs_scores:
                if scored:
                    continue
                scored, length = True, min(length, KEPT_SEQUENCES)
            try:
                self._cache.reserve(self._max_batch - budget + length)
            except CacheFull:
                if not pieces:
                    self._make_room()
                break
            start, position = request.sequence.length, request.sequence.next_position
            tokens = request.tokens[start : start + length]
            outputs = length if needs_scores or not is_prompt else 0
            pieces.append((request, Piece(request.sequence.id, position, tokens, outputs)))
            budget -= length
        return pieces

    def _make_room(self) -> None:
        """Take the cells of the newest request, which computes its tokens again later. Fail it if it is alone."""
        request_id, newest = list(self._requests.items())[-1]
        if len(self._requests) == 1:
            self._fail_full(newest.message)
            return
        log.warning("the KV cache is full; a request must wait")
        del self._requests[request_id]
        self._cache.drop(newest.sequence)
        self._paused.insert(0, newest)

    def _choose(self, request: _Request, logits: Logits) -> NewTokens | None:
        request_id = request.message.request_id
        try:
            choice = request.sampler.choose(logits)
        except InvalidLogits:
            log.error("the model computed no valid logits for a request")
            self._fail(request_id, _FAILED)
            return None
        request.tokens.append(choice.token)
        request.num_generated += 1
        reason = self._finish_reason(request, choice)
        if reason:
            self._remove(request_id)
        new = NewTokens(request_id, [choice.token], reason)
        if choice.logprob is not None:
            new = new._replace(logprobs=[choice.logprob], top_logprobs=[choice.top])
        if not request.reported:
            request.reported = True
            scores = [score for _, score in sorted((request.scores or {}).items())]
            new = new._replace(cached_tokens=request.num_cached, prompt_scores=scores)
        return new

    def _finish_reason(self, request: _Request, choice: Choice) -> str | None:
        if choice.token in self._end_tokens and not request.sampler.ignores_end:
            return "stop"
        return "length" if request.num_generated >= request.max_tokens else None

    def _fail_full(self, message: Generate) -> None:
        text = "The request does not fit into the model's KV cache; increase --kv-cache-gb"
        self._fail(message.request_id, text)

    def _fail(self, request_id: int, message: str, is_client_error: bool = False, param: str | None = None) -> None:
        self._remove(request_id)
        self._failed.append(Failed(request_id, message, is_client_error, param))

    def _remove(self, request_id: int) -> None:
        self._queue.remove(request_id)
        self._admitted = [message for message in self._admitted if message.request_id != request_id]
        self._may_admit = True
        for request in [paused for paused in self._paused if paused.message.request_id == request_id]:
            self._paused.remove(request)
            request.sampler.close()
        if running := self._requests.pop(request_id, None):
            self._cache.finish(running.sequence)
            running.sampler.close()

    def _gauges(self) -> Gauges:
        waiting = len(self._queue) + len(self._admitted) + len(self._paused) + len(self._awaiting_trial)
        return Gauges(len(self._requests), waiting, self._cache.used / self._context.cells)


_MAX_DEFAULT_CELLS = 131_072


def _default_cells(parameters: GenerationParameters) -> int:
    """Return the size of the KV cache in tokens if the launcher has not set one."""
    cells = (parameters.cache_size_gb << 30) // max(1, parameters.kv_bytes_per_token)
    return min(cells, 2 * parameters.context_length, _MAX_DEFAULT_CELLS)


def main() -> None:
    """Load the model and serve. The command line is `process.py FOLDER PARAMETERS_JSON FILE_DESCRIPTOR`."""
    folder, parameters = Path(sys.argv[1]), GenerationParameters(**json.loads(sys.argv[2]))

    def open_engine(socket: Connection) -> Engine:
        threads = parameters.threads or len(os.sched_getaffinity(0))
        context = LlamaContext(
            folder,
            cells=parameters.cache_tokens or _default_cells(parameters),
            max_batch=parameters.max_num_batched_tokens,
            max_running=parameters.max_num_seqs,
            threads=threads,
            on_gpu=parameters.device != "CPU",
        )
        context.decode([Piece(0, 0, [0] * 8, 1)])
        context.remove(0)
        trials = GrammarTrials(folder)
        return Engine(
            context,
            socket,
            trials,
            slots=min(parameters.max_num_seqs, MAX_SEQUENCES - KEPT_SEQUENCES),
            max_batch=parameters.max_num_batched_tokens,
            saved_bytes=parameters.cache_size_gb << 30,
        )

    serve(folder, open_engine)


if __name__ == "__main__":
    main()
