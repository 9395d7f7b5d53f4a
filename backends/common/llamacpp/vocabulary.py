"""The vocabulary of a GGUF file, as llama.cpp reads it."""

import codecs
import ctypes
import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from backends.common.llamacpp.library import GGUF, LIBRARIES, load_library, load_model

_PIECE = 256

# llama.cpp's pre-tokenizers for byte-level BPE are recursive for some models, and overflow the stack at a run of 60,000
# equal characters. So longer texts are tokenized in parts.
_BPE, _MAX_PART = 2, 10_000
_BOUNDARY = re.compile(r"[^\W_][ \n](?=\w)")


class LlamaVocabulary:
    """The vocabulary of the GGUF file in a version folder. It keeps the file's header open, but not the weights."""

    def __init__(self, folder: Path):
        self._llama = load_library(folder / LIBRARIES)
        # The vocabulary belongs to its model, so the model is never freed.
        model = load_model(self._llama, folder / GGUF, vocabulary_only=True)
        self._vocabulary = self._llama.llama_model_get_vocab(model)
        self.size: int = self._llama.llama_vocab_n_tokens(self._vocabulary)
        self.piece = lru_cache(maxsize=self.size)(self._piece)

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Return the token IDs of a text."""
        if len(text) <= _MAX_PART or self._llama.llama_vocab_type(self._vocabulary) != _BPE:
            return self._encode(text, add_special)
        return [
            token for index, part in enumerate(_parts(text)) for token in self._encode(part, add_special and index == 0)
        ]

    def _encode(self, text: str, add_special: bool) -> list[int]:
        content = text.encode()
        size = len(content) + 8
        while True:
            ids = (ctypes.c_int32 * size)()
            count = self._llama.llama_tokenize(self._vocabulary, content, len(content), ids, size, add_special, True)
            if count >= 0:
                return list(ids[:count])
            size = -count

    def separators(self) -> list[int]:
        """Return the special tokens between the two texts of a pair, which are those of llama.cpp's server."""
        llama, vocabulary, found = self._llama, self._vocabulary, []
        if llama.llama_vocab_get_add_eos(vocabulary):
            found.append(llama.llama_vocab_eos(vocabulary))
        if llama.llama_vocab_get_add_sep(vocabulary):
            found.append(llama.llama_vocab_sep(vocabulary))
        return [token for token in found if token >= 0]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token IDs, with special tokens."""
        return b"".join(self.piece(token, True) for token in ids).decode(errors="replace")

    def detokenizer(self, visible: Collection[str] = ()) -> "LlamaDetokenizer":
        """Return a detokenizer that omits special tokens, except those in `visible`."""
        return LlamaDetokenizer(self, visible)

    def describe(self, token: int, logprob: float | None, *, with_special: bool = False) -> dict[str, Any] | None:
        """Return a token's entry in OpenAI's `logprobs`. Return None for a special token."""
        if not with_special and self.is_special(token):
            return None
        content = self.piece(token, True)
        return {"token": content.decode(errors="replace"), "logprob": logprob, "bytes": list(content)}

    def is_special(self, token: int) -> bool:
        """Return whether a token is a control token or ends an answer."""
        return bool(
            self._llama.llama_vocab_is_control(self._vocabulary, token)
            or self._llama.llama_vocab_is_eog(self._vocabulary, token)
        )

    def _piece(self, token: int, with_special: bool) -> bytes:
        size = _PIECE
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._llama.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, with_special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count


class LlamaDetokenizer:
    """Decodes the tokens of one answer incrementally."""

    def __init__(self, vocabulary: LlamaVocabulary, visible: Collection[str]):
        self._vocabulary = vocabulary
        ids = {tag: vocabulary.encode(tag) for tag in visible}
        self._visible = {tokens[0] for tokens in ids.values() if len(tokens) == 1}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Return the text that `token` completes; an incomplete character is held back."""
        is_shown = token in self._visible or not self._vocabulary.is_special(token)
        return self._decoder.decode(self._vocabulary.piece(token, token in self._visible)) if is_shown else ""

    def flush(self) -> str:
        """Return nothing: only an incomplete character can be held back."""
        self._decoder.reset()
        return ""


def _parts(text: str) -> Iterator[str]:
    """Yield the parts of a long text. They begin with white space after other characters, as tokens do, if possible."""
    start = 0
    while start < len(text):
        end = start + _MAX_PART
        if end < len(text):
            ends = [match.start() + 1 for match in _BOUNDARY.finditer(text, start + _MAX_PART // 2, end)]
            end = ends[-1] if ends else end
        yield text[start:end]
        start = end
