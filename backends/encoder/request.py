"""One request as the encoder sees it: what to encode, and how it went."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backends.common.errors import EngineFailure, InvalidRequest
from backends.encoder.network import Array
from backends.encoder.tokens import Text, TextTokenizer, Tokens


@dataclass
class EncodeRequest:
    """Rows to encode: `texts`, or `token_ids` (bytes, see TextTokenizer.check_ids).

    Then their `tokens`, and the network's `rows` or a failure.
    """

    is_cancelled: Callable[[], bool] = lambda: False
    texts: list[Text] = field(default_factory=list)
    token_ids: list[bytes] = field(default_factory=list)
    truncate: bool = False
    tokens: list[Tokens] = field(default_factory=list)
    rows: Array | None = None
    failure: Exception | None = None

    def is_abandoned(self) -> bool:
        """Tell whether the caller has left; the request has failed then."""
        if self.is_cancelled():
            self.failure = EngineFailure("The request was cancelled")
        return self.failure is not None

    def finish(self, rows: Array) -> None:
        """Take the result, unless a row is not a number: a network may overflow on odd input."""
        odd = ~np.isfinite(rows).all(axis=1)
        if odd.any():
            self.failure = InvalidRequest("The model's result for this input is not a number", row=int(odd.argmax()))
        self.rows = rows


def tokenize(items: list[EncodeRequest], tokenizer: TextTokenizer) -> None:
    """Tokenize all requests' rows in one call; a request with a row that cannot be used fails, and no other."""
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
