"""Tokens by themselves, as OpenAI's log probabilities have them: their text and their bytes."""

import json
from typing import Any

from tokenizers import Tokenizer


class TokenTexts:
    """Knows what a model's tokens are when they stand alone, where a character may be cut in two."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        described = json.loads(tokenizer.to_str())
        self._added = {token["id"]: token for token in described["added_tokens"]}
        self._bytes = _letters_of_bytes() if '"ByteLevel"' in json.dumps(described["decoder"]) else {}

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


def _letters_of_bytes() -> dict[str, int]:
    """Return GPT-2's letters for the 256 bytes: those that print stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
