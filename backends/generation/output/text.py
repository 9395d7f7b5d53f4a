"""Token ids to text: no half characters, nothing at or past a stop string, reasoning counted, tokens by themselves."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from contract.reasoning import CLOSE, OPEN
from contract.text import byte_alphabet, suffix_overlap


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

    `opened` is what the prompt has begun already. Text may come late: a token counts with the text that it completes.
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
            self._over = CLOSE in self._text
            self._text = self._text[-len(CLOSE) :]

    def _begin(self) -> None:
        begun = self._text.lstrip()
        self._begun = begun.startswith(OPEN)
        if not self._begun and not OPEN.startswith(begun):
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
