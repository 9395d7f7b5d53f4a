"""One encoding request: its input, tokens, and result or failure."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backends.common.errors import EngineFailure, InvalidRequest
from backends.encoder.network import Array
from backends.encoder.tokens import Text, Tokenizer, Tokens


@dataclass
class EncodeRequest:
    """A request to encode `texts`, or `token_ids` (bytes, see Tokenizer.check_ids).

    The function `tokenize` sets `tokens`, with one item per row, or sets `failure` if a row is invalid. The method
    `finish` sets `rows`, the network's output, and also sets `failure` if a value in `rows` is not finite.
    """

    is_cancelled: Callable[[], bool] = lambda: False
    texts: list[Text] = field(default_factory=list)
    token_ids: list[bytes] = field(default_factory=list)
    truncate: bool = False
    tokens: list[Tokens] = field(default_factory=list)
    rows: Array | None = None
    failure: Exception | None = None

    def has_failed(self) -> bool:
        """Return whether the request has failed. A cancelled request counts as failed, and its `failure` is set."""
        if self.is_cancelled():
            self.failure = EngineFailure("The request was cancelled")
        return self.failure is not None

    def finish(self, rows: Array) -> None:
        """Store the network's output.

        Set `failure` if a value is not finite, because a network may overflow on unusual input.
        """
        odd = ~np.isfinite(rows).all(axis=1)
        if odd.any():
            self.failure = InvalidRequest("The model's result for this input is not finite", row=int(odd.argmax()))
        self.rows = rows


def tokenize(items: list[EncodeRequest], tokenizer: Tokenizer) -> None:
    """Tokenize the texts of all requests in one call, and check the token IDs of requests that have no texts.

    If a row of a request is invalid, set the request's `failure`.
    """
    texts = [text for item in items for text in item.texts]
    rows = iter(tokenizer.encode(texts, [item.truncate for item in items for _ in item.texts]))
    for item in items:
        results = [next(rows) for _ in item.texts] + [tokenizer.check_ids(ids) for ids in item.token_ids]
        tokens = [row for row in results if isinstance(row, Tokens)]
        if len(tokens) == len(results):
            item.tokens = tokens
        else:
            row, failure = next((i, row) for i, row in enumerate(results) if isinstance(row, InvalidRequest))
            failure.row = row
            item.failure = failure
