"""Vocabularies in tokenizer.json, the format of Hugging Face's tokenizers."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from contract.byte_alphabet import byte_alphabet


class HuggingFaceVocabulary:
    """A vocabulary on Hugging Face's tokenizers. A token may contain only part of a character."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size()
        described = json.loads(tokenizer.to_str())
        self._added = {token["id"]: token for token in described["added_tokens"]}
        self._bytes = byte_alphabet() if '"ByteLevel"' in json.dumps(described["decoder"]) else {}

    @classmethod
    def open(cls, path: Path) -> "HuggingFaceVocabulary":
        """Return the vocabulary in a tokenizer.json."""
        return cls(Tokenizer.from_file(str(path)))

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Return the token IDs of a text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token IDs, with special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def detokenizer(self, visible: Collection[str] = ()) -> "HuggingFaceDetokenizer":
        """Return a detokenizer that omits special tokens, except those in `visible`."""
        return HuggingFaceDetokenizer(self.tokenizer, visible)

    def describe(self, token: int, logprob: float | None, *, with_special: bool = False) -> dict[str, Any] | None:
        """Return a token's entry in OpenAI's `logprobs`. Return None for a special token."""
        if not with_special and token in self._added and self._added[token]["special"]:
            return None
        content = self._content(token)
        return {"token": content.decode(errors="replace"), "logprob": logprob, "bytes": list(content)}

    def _content(self, token: int) -> bytes:
        written = self.tokenizer.id_to_token(token) or ""
        if token not in self._added and written and all(letter in self._bytes for letter in written):
            return bytes(self._bytes[letter] for letter in written)
        if written.startswith("<0x") and len(written) == 6:  # a SentencePiece byte token
            return bytes([int(written[3:5], 16)])
        text: str = self.tokenizer.decode([token], skip_special_tokens=False)
        # SentencePiece's decoder strips a leading space. Restore the space, because it is part of the token.
        return (f" {text}" if written.startswith("\u2581") and not text.startswith(" ") else text).encode()


class HuggingFaceDetokenizer:
    """Decodes the tokens of one answer incrementally. Text that `push` has returned never changes.

    Special tokens are omitted, except those in `visible`, such as the tags of tool calls.
    """

    def __init__(self, tokenizer: Tokenizer, visible: Collection[str] = ()):
        self._tokenizer = tokenizer
        self._visible = {tokenizer.token_to_id(token): token for token in visible}
        self._stream = DecodeStream(skip_special_tokens=True)
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that `token` completes; an incomplete character is held back."""
        if token in self._visible:
            return self.flush() + self._visible[token]
        self._pending.append(token)
        piece: str | None = self._stream.step(self._tokenizer, token)
        if piece is None:
            return ""
        self._pending.clear()
        return piece

    def flush(self) -> str:
        """Return the text of the tokens that were held back, without an incomplete character at the end."""
        text: str = self._tokenizer.decode(self._pending, skip_special_tokens=True)
        self._pending.clear()
        return text.rstrip("\ufffd")
