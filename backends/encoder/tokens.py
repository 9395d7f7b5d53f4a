"""Tokenizes all texts of a batch in one call, and enforces the model's token limit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tokenizers

from backends.common.errors import InvalidRequest

# A text, or a pair of a query and a document.
Text = str | tuple[str, str]


class Tokens(NamedTuple):
    """One row for the network: token IDs and token type IDs. In BERT, the second text of a pair has type 1."""

    ids: Sequence[int]
    types: Sequence[int]


class Tokenizer(Protocol):
    """Converts texts to rows for the network."""

    def encode(self, texts: Sequence[Text], truncate: Sequence[bool]) -> list[Tokens | InvalidRequest]:
        """Return, for each text, its tokens or an error.

        A text results in an error if it is too long and truncation is not allowed.
        """

    def check_ids(self, content: bytes) -> Tokens | InvalidRequest:
        """Return the row of token IDs (little-endian int32, with special tokens), or an error if they are invalid."""


class LimitedTokenizer:
    """What all tokenizers have in common: the model's vocabulary size and maximum number of tokens per row."""

    def __init__(self, max_tokens: int, vocabulary_size: int):
        self.max_tokens, self._vocabulary_size = max_tokens, vocabulary_size

    def check_ids(self, content: bytes) -> Tokens | InvalidRequest:
        """Return the row of token IDs in `content`, or an error if the IDs are invalid.

        The IDs are little-endian int32, and include special tokens.
        """
        ids = np.frombuffer(content[: len(content) // 4 * 4], "<i4")
        if not len(ids) or ids.min() < 0 or ids.max() >= self._vocabulary_size:
            return InvalidRequest(f"Token IDs must be from 0 to {self._vocabulary_size - 1}")
        if len(ids) > self.max_tokens:
            return self.too_long(len(ids))
        return Tokens(ids.tolist(), [0] * len(ids))

    def too_long(self, length: int, advice: str = "") -> InvalidRequest:
        """Return the error for a row of `length` tokens."""
        return InvalidRequest(
            f"This model's maximum context length is {self.max_tokens} tokens, but the input has {length}.{advice}",
            code="context_length_exceeded",
        )


class TextTokenizer(LimitedTokenizer):
    """The tokenizer of a model that supports at most `max_tokens` tokens per row.

    With a `template`, a pair becomes one text: `{query}` and `{document}` are filled in, and the template's text after
    `{document}` is kept when the document is truncated. Without a template, the tokenizer adds its special tokens.
    """

    def __init__(self, path: Path, max_tokens: int, template: str | None = None):
        self._tokenizer, self._truncating = (tokenizers.Tokenizer.from_file(str(path)) for _ in range(2))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._truncating.no_padding()
        self._head, _, tail = (template or "").partition("{document}")
        self._add_special = template is None
        self._tail: list[int] = self._tokenizer.encode(tail, add_special_tokens=False).ids
        self._max_text_tokens = max_tokens - len(self._tail)
        first, second = ("", "") if self._add_special else (self._head.replace("{query}", ""), None)
        self._overhead = len(self._tokenizer.encode(first, second, add_special_tokens=self._add_special).ids)
        super().__init__(max_tokens, self._tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[Text], truncate: Sequence[bool]) -> list[Tokens | InvalidRequest]:
        """Return, for each text, its tokens or an error.

        A text results in an error if it is too long and truncation is not allowed.
        """
        prepared = [text if isinstance(text, str) or self._add_special else "".join(self._fill(text)) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(prepared, add_special_tokens=self._add_special)
        return [self._finish(*row) for row in zip(texts, encodings, truncate, strict=True)]

    def _fill(self, text: tuple[str, str]) -> tuple[str, str]:
        """Return two strings: the template's text before `{document}`, with the query filled in; and the document."""
        return self._head.replace("{query}", text[0]), text[1]

    def _finish(self, text: Text, encoding: Any, truncate: bool) -> Tokens | InvalidRequest:
        if len(encoding.ids) > self._max_text_tokens:
            if not truncate:
                return self.too_long(len(encoding.ids) + len(self._tail), " Set 'truncate' to true to truncate it.")
            encoding = self._truncate(text)
        return Tokens(encoding.ids + self._tail, encoding.type_ids + [0] * len(self._tail))

    def _truncate(self, text: Text) -> Any:
        """Return the encoding of `text`, truncated to the limit.

        If `text` is a pair, a query that is longer than half of the available tokens is truncated to half of them. The
        document is truncated to the rest.
        """
        if isinstance(text, str):
            self._truncating.enable_truncation(self._max_text_tokens)
            return self._truncating.encode(text, add_special_tokens=self._add_special)
        pair = self._shorten_query(text[0]), text[1]
        query, document = pair if self._add_special else self._fill(pair)
        if self._add_special:
            self._truncating.enable_truncation(self._max_text_tokens, strategy="only_second")
            return self._truncating.encode(query, document)
        self._truncating.enable_truncation(self._max_text_tokens)
        return self._truncating.encode(query + document, add_special_tokens=False)

    def _shorten_query(self, query: str) -> str:
        encoding = self._tokenizer.encode(query, add_special_tokens=False)
        limit = max(1, (self._max_text_tokens - self._overhead) // 2)
        return query[: encoding.offsets[limit - 1][1]] if len(encoding.ids) > limit else query
