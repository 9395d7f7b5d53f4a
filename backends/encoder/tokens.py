"""From texts to token ids: one call for all texts of a batch, with the model's limit kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from protocol.errors import InvalidRequest
from tokenizers import Tokenizer

# A text, or a query and a document.
Text = str | tuple[str, str]

# More characters than this to a token of the limit are looked at only if it takes them to fill it.
_CHARACTERS_PER_TOKEN = 64


class Tokens(NamedTuple):
    """One row for the network: token ids, and for each which of the two texts it is of."""

    ids: Sequence[int]
    types: Sequence[int]


class TextTokenizer:
    """Tokenizes for one model, which takes `max_tokens` a row.

    With a `template`, a pair becomes one text: `{query}` and `{document}` are put in, and what follows the document
    stays whole when the document is cut. Without one, the tokenizer's own special tokens go around.
    """

    def __init__(self, path: Path, max_tokens: int, template: str | None = None):
        self._tokenizer, self._cutting = Tokenizer.from_file(str(path)), Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._cutting.no_padding()
        self._head, _, tail = (template or "").partition("{document}")
        self._special = template is None
        self._tail: list[int] = self._tokenizer.encode(tail, add_special_tokens=False).ids
        self._max_tokens, self._room = max_tokens, max_tokens - len(self._tail)
        self._vocabulary = self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[Text], truncate: Sequence[bool]) -> list[Tokens | InvalidRequest]:
        """Return each text's tokens; for one that is too long, and is not to be cut, what to tell the caller."""
        prepared = [self._prepare(text) for text in texts]
        short = [self._shorten(text) for text in prepared]
        encodings = self._tokenizer.encode_batch_fast(short, add_special_tokens=self._special)
        return [self._finish(*row) for row in zip(prepared, short, encodings, truncate, strict=True)]

    def check_ids(self, content: bytes) -> Tokens | InvalidRequest:
        """Take token ids as they are: little-endian int32, the model's own, special tokens included."""
        ids = np.frombuffer(content, "<i4")
        if not len(ids) or ids.min() < 0 or ids.max() >= self._vocabulary:
            return InvalidRequest(f"token ids are from 0 to {self._vocabulary - 1}, and at least one")
        if len(ids) > self._max_tokens:
            return self._too_long(len(ids))
        return Tokens(ids.tolist(), [0] * len(ids))

    def _prepare(self, text: Text) -> Text:
        if self._special or isinstance(text, str):
            return text
        query, document = text
        return self._head.replace("{query}", query) + document

    def _shorten(self, text: Text) -> Text:
        limit = self._max_tokens * _CHARACTERS_PER_TOKEN
        if isinstance(text, str):
            return text if len(text) <= limit else text[:limit]
        return text if len(text[0]) + len(text[1]) <= limit else (text[0][:limit], text[1][:limit])

    def _finish(self, text: Text, short: Text, encoding: Any, truncate: bool) -> Tokens | InvalidRequest:
        if short is not text and len(encoding.ids) <= self._room:
            short, encoding = text, self._tokenizer.encode(*_parts(text), add_special_tokens=self._special)
        if len(encoding.ids) > self._room:
            if not truncate:
                return self._too_long(len(encoding.ids) + len(self._tail), "" if short is text else "more than ")
            encoding = self._cut(short)
            if encoding is None:
                return InvalidRequest(f"The query alone fills the {self._max_tokens} tokens this model takes", "query")
        return Tokens(encoding.ids + self._tail, encoding.type_ids + [0] * len(self._tail))

    def _cut(self, text: Text) -> Any:
        """Tokenize `text` and cut it to the limit: of a pair the document alone. None if that does not suffice."""
        strategy = "longest_first" if isinstance(text, str) else "only_second"
        self._cutting.enable_truncation(self._room, strategy=strategy)
        first, second = _parts(text)
        if second is not None and len(self._tokenizer.encode(first, "").ids) >= self._room:
            return None
        return self._cutting.encode(first, second, add_special_tokens=self._special)

    def _too_long(self, length: int, about: str = "") -> InvalidRequest:
        return InvalidRequest(
            f"This model takes {self._max_tokens} tokens and this input has {about}{length}. "
            "Set 'truncate' to true to have it cut.",
            code="context_length_exceeded",
        )


def _parts(text: Text) -> tuple[str, str | None]:
    return (text, None) if isinstance(text, str) else text
