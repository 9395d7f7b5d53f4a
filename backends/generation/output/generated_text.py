"""Converts the tokens generated for a request, as they arrive, to text, token counts and log probabilities."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backends.generation.engine.ipc import TokenScore, TopLogprobs
from backends.generation.vocabulary import Detokenizer
from contract.model_text import REASONING_CLOSE, REASONING_OPEN, suffix_overlap


class StopStrings:
    """Passes text through up to the first stop string, and holds back text that may begin a stop string."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stops)
        self._held_back = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Return the text that is safe to send; set `hit` if a stop string is found."""
        if not self._stops:
            return text
        text = self._held_back + text
        found = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if found:
            self.hit, self._held_back = True, ""
            return text[: min(found)[0]]
        keep = max(suffix_overlap(text, stop) for stop in self._stops)
        self._held_back = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """At the end of the answer, return the text that was held back."""
        held_back, self._held_back = self._held_back, ""
        return held_back


class ReasoningCounter:
    """Counts the reasoning tokens of an answer that begins with `<think>`: all tokens up to and including `</think>`.

    If the answer has no `</think>`, all of its tokens are counted. `reasoning_prefix` is the part of the answer that
    the prompt already contains, such as `<think>`. The tokens of that part are not counted. A token that only begins a
    character has an empty text, and is counted like any other token.
    """

    def __init__(self, reasoning_prefix: str = ""):
        self._count = 0
        self._text, self._started, self._over = reasoning_prefix, False, False

    def push(self, text: str) -> None:
        """Add the text of one more token."""
        if self._over:
            return
        self._count += 1
        self._text += text
        if not self._started:
            self._check_start()
        if self._started:
            self._over = REASONING_CLOSE in self._text
            self._text = self._text[-len(REASONING_CLOSE) :]

    def _check_start(self) -> None:
        beginning = self._text.lstrip()
        self._started = beginning.startswith(REASONING_OPEN)
        if not self._started and not REASONING_OPEN.startswith(beginning):
            self._count, self._over = 0, True

    @property
    def tokens(self) -> int:
        """The number of reasoning tokens so far; 0 until it is certain that the answer begins with reasoning."""
        return self._count if self._started else 0


class GeneratedText:
    """The output of one request. The engine client's thread adds tokens, and the sender's thread takes them."""

    def __init__(self, reply: Any, request_id: str, client: str = ""):
        self.reply = reply
        """Triton's response sender for the request."""
        self.request_id = request_id
        self.client = client
        """Identifies the client that sent the request; clients get fair shares of the engine's slots."""
        self.engine_request_id = 0
        """The request's ID in the engine; 0 until the request is sent to the engine."""
        self.closed = False
        """Whether nothing more will be sent: the answer is complete, or its request failed or was cancelled."""
        self.finished = False
        """Whether no more tokens will be added: the answer is complete or failed."""
        self.prompt: Any = None
        """The prompt, if the output may have to be generated again."""
        self.attempts = 1
        """How often the output has been generated."""
        self.has_sent = False
        """Whether a part of the output has been sent."""
        self.streamed = True
        """Whether text is decoded and sent while the answer is generated."""
        self._lock = threading.Lock()
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._top_logprobs: list[TopLogprobs] = []
        self._prompt_scores: Sequence[TokenScore] = ()
        self._num_cached_tokens: int | None = None
        self._finish_reason: str | None = None
        self._error: Exception | None = None
        self._num_input_tokens = self._num_output_tokens = 0

    def prepare(
        self,
        num_input_tokens: int,
        parameters: dict[str, Any],
        detokenizer: Detokenizer,
        reasoning_prefix: str = "",
        check: Callable[[str], bool] | None = None,
    ) -> None:
        """Prepare the answer for generation.

        `reasoning_prefix` is sent before the generated text. With `echo`, it is the text of the prompt. Otherwise, it
        is the `<think>` that the chat template has written at the end of the prompt, if any. `check` returns whether a
        complete output satisfies the request's constraint.
        """
        self._check, self._whole = check, list[str]()
        self._prefix = self._whole_prefix = reasoning_prefix
        self._num_input_tokens, self.parameters = num_input_tokens, parameters
        # To end generation at a stop string, the text must be decoded while it is generated, even if `stream` is false.
        self.streamed = bool(parameters.get("stream", True) or parameters.get("stop"))
        self._detokenizer, self._stops = detokenizer, StopStrings(parameters.get("stop", ()))
        self._reasoning = (
            ReasoningCounter(reasoning_prefix) if REASONING_CLOSE in parameters.get("visible_tokens", ()) else None
        )

    def add(
        self,
        tokens: list[int],
        finish_reason: str | None = None,
        logprobs: Sequence[float] = (),
        top_logprobs: Sequence[TopLogprobs] = (),
        cached_tokens: int | None = None,
        prompt_scores: Sequence[TokenScore] = (),
    ) -> None:
        """Add generated tokens and what `NewTokens` has about them; a `finish_reason` ends the answer."""
        with self._lock:
            self._prompt_scores = self._prompt_scores or prompt_scores
            self._tokens += tokens
            self._logprobs += logprobs
            self._top_logprobs += top_logprobs or [()] * len(logprobs)
            if cached_tokens is not None:
                self._num_cached_tokens = cached_tokens
            self._finish_reason = finish_reason
            self.finished = finish_reason is not None

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        with self._lock:
            self._error, self.finished = error, True

    def take_delta(self) -> "Delta":
        """Return the output since the last call. If the answer failed, raises the error that `fail` received."""
        with self._lock:
            tokens, self._tokens = self._tokens, []
            logprobs, self._logprobs = self._logprobs, []
            top_logprobs, self._top_logprobs = self._top_logprobs, []
            prompt_scores, self._prompt_scores = self._prompt_scores, ()
            finish_reason, error = self._finish_reason, self._error
        if error:
            raise error
        before = self._num_output_tokens
        text = self._decode(tokens)
        token_logprobs = zip(tokens[: self._num_output_tokens - before], logprobs, top_logprobs, strict=False)
        if finish_reason and not self._stops.hit:
            text += self._stops.push(self._detokenizer.flush()) + self._stops.flush()
        if self._stops.hit:
            finish_reason = "stop"
        if self._check:
            self._whole.append(text)
        if text or finish_reason or prompt_scores:
            text, self._prefix = self._prefix + text, ""
        reasoning_tokens = self._reasoning.tokens if self._reasoning else None
        return Delta(
            text,
            finish_reason,
            self._num_input_tokens,
            self._num_output_tokens,
            reasoning_tokens,
            tuple(token_logprobs),
            self._num_cached_tokens,
            prompt_scores,
        )

    def violates_constraint(self) -> bool:
        """Return whether the complete output violates the request's constraint.

        An output that ends at the token limit or at a stop string is incomplete, and therefore not checked.
        """
        is_complete = self._finish_reason == "stop" and not self._stops.hit
        return bool(is_complete and self._check and not self._check("".join(self._whole)))

    def restart(self, detokenizer: Detokenizer) -> None:
        """Discard the output, none of which has been sent, so that it can be generated again with another seed."""
        prefix, num_input_tokens = self._whole_prefix, self._num_input_tokens
        with self._lock:
            self._tokens, self._logprobs, self._finish_reason, self.finished = [], [], None, False
            self._top_logprobs, self._prompt_scores = [], ()
        self._num_output_tokens, self.attempts = 0, self.attempts + 1
        self.parameters = self.parameters | {"seed": self.parameters["seed"] + 1}
        self.prepare(num_input_tokens, self.parameters, detokenizer, prefix, self._check)

    def _decode(self, tokens: list[int]) -> str:
        """Return the text of new tokens, up to the first stop string."""
        text = ""
        for token in tokens:
            self._num_output_tokens += 1
            new = self._detokenizer.push(token)
            text += self._stops.push(new)
            if self._reasoning:
                self._reasoning.push(new)
            if self._stops.hit:
                break
        return text


@dataclass(frozen=True)
class Delta:
    """New output of an answer; the token counts are totals since the beginning of the answer."""

    text: str
    finish_reason: str | None
    num_input_tokens: int
    num_output_tokens: int
    num_reasoning_tokens: int | None
    """How many output tokens are reasoning; None if `</think>` is not one of the request's `visible_tokens`."""
    logprobs: tuple[tuple[int, float, TopLogprobs], ...] = ()
    """The new token IDs, their log probabilities and the most likely tokens; empty unless requested."""
    num_cached_tokens: int | None = None
    """How many tokens of the prompt were not computed; None if the engine does not report it."""
    prompt_scores: Sequence[TokenScore] = ()
    """The log probabilities of the prompt's tokens, together with the prompt's text, if requested."""
