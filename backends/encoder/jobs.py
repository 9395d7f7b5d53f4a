"""One request as the encoder sees it: what to encode, and how it went."""

from dataclasses import dataclass, field

import numpy as np
from encoder.pooling import Array
from encoder.tokens import Text, TextTokenizer, Tokens
from protocol.errors import InvalidRequest


@dataclass
class Job:
    """Rows to encode: `texts`, or `token_ids` (bytes, see TextTokenizer.check_ids). Then their `tokens`
    and the network's `rows`, or a failure."""

    texts: list[Text] = field(default_factory=list)
    token_ids: list[bytes] = field(default_factory=list)
    truncate: bool = False
    tokens: list[Tokens] = field(default_factory=list)
    rows: Array | None = None
    failure: Exception | None = None

    def check(self) -> None:
        """Fail if a row came out as something that is not a number: a network may overflow on odd input."""
        assert self.rows is not None  # noqa: S101
        odd = ~np.isfinite(self.rows).all(axis=1)
        if odd.any():
            self.failure = InvalidRequest("The model's result for this input is not a number", row=int(odd.argmax()))


def tokenize(jobs: list[Job], tokenizer: TextTokenizer) -> None:
    """Tokenize all jobs' rows in one call; a job with a row that cannot be used fails, and no other."""
    texts = [text for job in jobs for text in job.texts]
    rows = iter(tokenizer.encode(texts, [job.truncate for job in jobs for _ in job.texts]))
    for job in jobs:
        results = [next(rows) for _ in job.texts] + [tokenizer.check_ids(ids) for ids in job.token_ids]
        job.tokens = [row for row in results if isinstance(row, Tokens)]
        if len(job.tokens) < len(results):
            row, failure = next((i, row) for i, row in enumerate(results) if isinstance(row, InvalidRequest))
            failure.row = row
            job.tokens, job.failure = [], failure
