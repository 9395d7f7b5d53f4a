"""One Triton request as the encoder sees it: what to encode, and how it went."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from encoder.pooling import Array
from encoder.tokens import Text, TextTokenizer, Tokens
from protocol.errors import InvalidRequest
from protocol.tensors import has_input, read_parameters, read_strings


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


def read_job(request: Any, prompts: Mapping[str, str]) -> Job:
    """Read a request. `prompts`: what is put before a text, by the request's `input_type` (query, document).

    Raises ValueError for strings that are not UTF-8.
    """
    parameters = read_parameters(request)
    if parameters.get("probe"):
        return Job()
    truncate = bool(parameters.get("truncate"))
    if has_input(request, "token_ids"):
        return Job(token_ids=read_strings(request, "token_ids"))
    if has_input(request, "query"):
        queries, documents = (
            [value.decode() for value in read_strings(request, name)] for name in ("query", "document")
        )
        return Job(texts=list(zip(queries, documents, strict=True)), truncate=truncate)
    prompt = prompts.get(parameters.get("input_type", "document"), "")
    return Job(texts=[prompt + value.decode() for value in read_strings(request, "text")], truncate=truncate)


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
