"""One answer in the making: what the engine has generated and what the caller has been sent of it, as text."""

import json
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from contract.byte_alphabet import byte_alphabet
from contract.model_text import REASONING_CLOSE, REASONING_OPEN, suffix_overlap


class Detokenizer:
    """Decodes one answer as its tokens come. What it has returned never changes.

    Of the tokenizer's special tokens those that are `visible` are written out: what a call of a tool is marked with.
    """

    def __init__(self, tokenizer: Tokenizer, visible: Collection[str] = ()):
        self._tokenizer = tokenizer
        self._visible = {tokenizer.token_to_id(token): token for token in visible}
        self._stream = DecodeStream(skip_special_tokens=True)
        self._withheld: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that `token` completes; a character whose bytes are not all there is kept back."""
        if token in self._visible:
            return self.flush() + self._visible[token]
        self._withheld.append(token)
        piece: str | None = self._stream.step(self._tokenizer, token)
        if piece is None:
            return ""
        self._withheld.clear()
        return piece

    def flush(self) -> str:
        """Return what is whole in the tokens kept back, at the end of the answer."""
        text: str = self._tokenizer.decode(self._withheld, skip_special_tokens=True)
        self._withheld.clear()
        return text.rstrip("\ufffd")


class StopStrings:
    """Passes text on up to the first stop string, keeping back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stops)
        self._kept = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Return the text that is safe to show; sets `hit` once a stop string was met."""
        if not self._stops:
            return text
        text = self._kept + text
        found = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if found:
            self.hit, self._kept = True, ""
            return text[: min(found)[0]]
        keep = max(suffix_overlap(text, stop) for stop in self._stops)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was kept back, when no more text will come."""
        kept, self._kept = self._kept, ""
        return kept


class ReasoningCounter:
    """Counts the tokens from `<think>`, which an answer with a thought begins with, to `</think>`, or to its end.

    `reasoning_prefix` is the part of it that the prompt has. Text may come late: a token counts with the text that it
    completes.
    """

    def __init__(self, reasoning_prefix: str = ""):
        self._count = 0
        self._text, self._begun, self._over = reasoning_prefix, False, False

    def push(self, text: str) -> None:
        """Take one more token's text."""
        if self._over:
            return
        self._count += 1
        self._text += text
        if not self._begun:
            self._begin()
        if self._begun:
            self._over = REASONING_CLOSE in self._text
            self._text = self._text[-len(REASONING_CLOSE) :]

    def _begin(self) -> None:
        begun = self._text.lstrip()
        self._begun = begun.startswith(REASONING_OPEN)
        if not self._begun and not REASONING_OPEN.startswith(begun):
            self._count, self._over = 0, True

    @property
    def tokens(self) -> int:
        """The tokens of the thought so far; none while it is open whether there is one."""
        return self._count if self._begun else 0


class TokenTexts:
    """Knows what a model's tokens are when they stand alone, where a character may be cut in two."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        described = json.loads(tokenizer.to_str())
        self._added = {token["id"]: token for token in described["added_tokens"]}
        self._bytes = byte_alphabet() if '"ByteLevel"' in json.dumps(described["decoder"]) else {}

    def describe(self, token: int, logprob: float) -> dict[str, Any] | None:
        """Return OpenAI's entry without its alternatives; None for a token that the text does not show."""
        if token in self._added and self._added[token]["special"]:
            return None
        content = self._content(token)
        return {"token": content.decode(errors="replace"), "logprob": logprob, "bytes": list(content)}

    def _content(self, token: int) -> bytes:
        letters = self._tokenizer.id_to_token(token) or ""
        if token not in self._added and letters and all(letter in self._bytes for letter in letters):
            return bytes(self._bytes[letter] for letter in letters)
        if letters.startswith("<0x") and len(letters) == 6:  # SentencePiece's single bytes
            return bytes([int(letters[3:5], 16)])
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        # SentencePiece's decoder takes off the blank that begins a text.
        return (f" {text}" if letters.startswith("\u2581") and not text.startswith(" ") else text).encode()


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
        """Make the answer ready for the engine; `reasoning_prefix` is put before its text."""
        self._prefix = reasoning_prefix
        self._num_input_tokens, self.parameters = num_input_tokens, parameters
        # A stop string is found in the text, so text must be made even if the caller wants it at the end alone.
        self.streamed = bool(parameters.get("stream", True) or parameters.get("stop"))
        self._detokenizer, self._stops = detokenizer, StopStrings(parameters.get("stop", ()))
        self._reasoning = (
            ReasoningCounter(reasoning_prefix) if REASONING_CLOSE in parameters.get("visible_tokens", ()) else None
        )

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
