"""One answer in the making: what the engine has generated and what the caller has been sent of it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.generation.output.text import Detokenizer, ReasoningCounter, StopStrings
from contract.reasoning import CLOSE


class Answer:
    """Shared by two threads: the engine client's adds tokens, the sender's takes them."""

    def __init__(self, reply: Any, request_id: str, client: str = ""):
        self.reply = reply
        """Triton's response sender: the one way back to the caller."""
        self.request_id = request_id
        self.client = client
        """Whose request it is, between whom the engine is fair."""
        self.number = 0
        """The engine's name for it; 0 until the engine has it."""
        self.over = False
        """Set by the sender: the caller has the whole answer, or has left."""
        self.finished = False
        """Nothing more will be added."""
        self.streamed = True
        """Whether text is wanted before the end."""
        self._lock = threading.Lock()
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._finish_reason: str | None = None
        self._error: Exception | None = None
        self._num_input_tokens = self._num_output_tokens = 0

    def open(
        self,
        num_input_tokens: int,
        parameters: dict[str, Any],
        detokenizer: Detokenizer,
        reasoning_prefix: str = "",
    ) -> None:
        """Make the answer ready for the engine; `opened` is put before its text."""
        self._prefix = reasoning_prefix
        self._num_input_tokens, self.parameters = num_input_tokens, parameters
        # A stop string is found in the text, so text must be made even if the caller wants it at the end alone.
        self.streamed = bool(parameters.get("stream", True) or parameters.get("stop"))
        self._detokenizer, self._stops = detokenizer, StopStrings(parameters.get("stop", ()))
        self._reasoning = ReasoningCounter(reasoning_prefix) if CLOSE in parameters.get("visible_tokens", ()) else None

    def add(self, tokens: list[int], finish_reason: str | None = None, logprobs: Sequence[float] = ()) -> None:
        """Add generated tokens, with their `logprobs` if those were asked for; `finish_reason` ends the answer."""
        with self._lock:
            self._tokens += tokens
            self._logprobs += logprobs
            self._finish_reason = finish_reason
            self.finished = finish_reason is not None

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        with self._lock:
            self._error, self.finished = error, True

    def take(self) -> "Delta":
        """Return what is new since the last call, as text. Raises the error the answer failed with."""
        with self._lock:
            tokens, self._tokens = self._tokens, []
            logprobs, self._logprobs = self._logprobs, []
            finish_reason, error = self._finish_reason, self._error
        if error:
            raise error
        before = self._num_output_tokens
        text = self._decode(tokens)
        said = zip(tokens[: self._num_output_tokens - before], logprobs, strict=False)
        if finish_reason and not self._stops.hit:
            text += self._stops.push(self._detokenizer.flush()) + self._stops.flush()
        if self._stops.hit:
            finish_reason = "stop"
        if text or finish_reason:
            text, self._prefix = self._prefix + text, ""
        reasoning_tokens = self._reasoning.tokens if self._reasoning else None
        return Delta(
            text, finish_reason, self._num_input_tokens, self._num_output_tokens, reasoning_tokens, tuple(said)
        )

    def _decode(self, tokens: list[int]) -> str:
        """Return the text of new tokens, up to a stop string if one is met."""
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
    """New text of an answer; the counts are the totals so far."""

    text: str
    finish_reason: str | None
    num_input_tokens: int
    num_output_tokens: int
    num_reasoning_tokens: int | None
    """Those of the output that are thoughts; None for a model that has none."""
    logprobs: tuple[tuple[int, float], ...] = ()
    """Tokens and their log probabilities, if those were asked for."""
