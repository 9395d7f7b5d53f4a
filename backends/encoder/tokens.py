"""From texts to token ids: one call for all texts of a batch, with the model's limit kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from backends.common.errors import InvalidRequest

# A text, or a query and a document.
Text = str | tuple[str, str]


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
        prepared = [text if isinstance(text, str) or self._special else "".join(self._fill(text)) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(prepared, add_special_tokens=self._special)
        return [self._finish(*row) for row in zip(texts, encodings, truncate, strict=True)]

    def check_ids(self, content: bytes) -> Tokens | InvalidRequest:
        """Take token ids as they are: little-endian int32, the model's own, special tokens included."""
        ids = np.frombuffer(content[: len(content) // 4 * 4], "<i4")
        if not len(ids) or ids.min() < 0 or ids.max() >= self._vocabulary:
            return InvalidRequest(f"token ids are from 0 to {self._vocabulary - 1}, and at least one")
        if len(ids) > self._max_tokens:
            return self._too_long(len(ids))
        return Tokens(ids.tolist(), [0] * len(ids))

    def _fill(self, text: tuple[str, str]) -> tuple[str, str]:
        """Return the template up to the document, and the document."""
        return self._head.replace("{query}", text[0]), text[1]

    def _finish(self, text: Text, encoding: Any, truncate: bool) -> Tokens | InvalidRequest:
        if len(encoding.ids) > self._room:
            if not truncate:
                return self._too_long(len(encoding.ids) + len(self._tail), " Set 'truncate' to true to have it cut.")
            encoding = self._cut(text)
            if encoding is None:
                return InvalidRequest(f"The query alone fills the {self._max_tokens} tokens this model takes", "query")
        return Tokens(encoding.ids + self._tail, encoding.type_ids + [0] * len(self._tail))

    def _cut(self, text: Text) -> Any:
        """Tokenize `text` and cut it to the limit: of a pair the document alone. None if that does not suffice."""
        if isinstance(text, str):
            self._cutting.enable_truncation(self._room)
            return self._cutting.encode(text, add_special_tokens=self._special)
        query, document = text if self._special else self._fill(text)
        empty = "" if self._special else None
        if len(self._tokenizer.encode(query, empty, add_special_tokens=self._special).ids) >= self._room:
            return None
        if self._special:
            self._cutting.enable_truncation(self._room, strategy="only_second")
            return self._cutting.encode(query, document)
        self._cutting.enable_truncation(self._room)
        return self._cutting.encode(query + document, add_special_tokens=False)

    def _too_long(self, length: int, advice: str = "") -> InvalidRequest:
        return InvalidRequest(
            f"This model takes {self._max_tokens} tokens and this input has {length}.{advice}",
            code="context_length_exceeded",
        )
