"""Triton's Python backend for embedding and rerank: batches of requests in, rows of numbers out."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.common.errors import InvalidRequest
from backends.common.model_config import begin
from backends.common.triton import error_response, has_input, read_parameters, read_strings
from backends.encoder.network import Network
from backends.encoder.request import Job, tokenize
from backends.encoder.tokens import Text, TextTokenizer, Tokens

log = logging.getLogger(__name__)

_OUTPUT = {"embedding": "embedding", "rerank": "score"}
_GROUP_TOKENS = 8192

# Waking its threads takes longer than most texts, and the network needs the cores anyway.
os.environ["TOKENIZERS_PARALLELISM"] = "false"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = begin(args)
        self._output = _OUTPUT[parameters["task"]]
        template, limit = parameters.get("template"), int(parameters["context_length"])
        self._prompts = {kind: parameters.get(f"{kind}_prompt", "") for kind in ("query", "document")}
        self._tokenizer = TextTokenizer(folder / "tokenizer.json", limit, template)
        self._network = Network(folder, parameters)
        self._network.run([Tokens([1] * 16, [0] * 16)])  # the first run is slow

    def execute(self, requests: list[Any]) -> list[Any]:
        jobs = [self._read(request) for request in requests]
        _together(lambda some: tokenize(some, self._tokenizer), jobs)
        groups = list(_groups([job for job in jobs if job.tokens]))
        for group in groups:
            _together(self._compute, group if len(groups) == 1 else [job for job in group if not job.is_abandoned()])
        return [self._respond(job) for job in jobs]

    def _read(self, request: Any) -> Job:
        try:
            parameters = read_parameters(request)
            if parameters.get("probe"):
                return Job()
            if has_input(request, "token_ids"):
                return Job(request.is_cancelled, token_ids=read_strings(request, "token_ids"))
            texts = self._texts(request, parameters)
            return Job(request.is_cancelled, texts=texts, truncate=bool(parameters.get("truncate")))
        except ValueError as error:
            return Job(failure=InvalidRequest(f"Malformed input: {error}"))

    def _texts(self, request: Any, parameters: dict[str, Any]) -> list[Text]:
        """Return texts with the prompt for their kind before them, or pairs of query and document."""
        if has_input(request, "query"):
            queries, documents = (
                [value.decode() for value in read_strings(request, name)] for name in ("query", "document")
            )
            return list(zip(queries, documents, strict=True))
        prompt = self._prompts.get(parameters.get("input_type", "document"), "")
        return [prompt + value.decode() for value in read_strings(request, "text")]

    def _compute(self, jobs: list[Job]) -> None:
        rows = self._network.run([row for job in jobs for row in job.tokens])
        if len(jobs) > 1 and not np.isfinite(rows).all():
            raise ArithmeticError("a row is not a number; in an int8 model it spoils the others")
        ends = np.cumsum([len(job.tokens) for job in jobs])
        for job, end in zip(jobs, ends, strict=True):
            job.finish(rows[end - len(job.tokens) : end])

    def _respond(self, job: Job) -> Any:
        if job.failure:
            return error_response(job.failure)
        if job.rows is None:
            return pb_utils.InferenceResponse([])
        counts = np.array([[len(row.ids)] for row in job.tokens], np.int32)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(self._output, job.rows), pb_utils.Tensor("num_input_tokens", counts)]
        )


def _together(step: Callable[[list[Job]], None], jobs: list[Job]) -> None:
    """Take a step for all jobs at once; if that fails, for one after the other, so that only the one at fault does."""
    if not jobs:
        return
    try:
        step(jobs)
    except Exception as error:
        if len(jobs) == 1:
            log.exception("a request failed")
            jobs[0].failure = error
        else:
            for job in jobs:
                _together(step, [job])


def _groups(jobs: list[Job]) -> Iterator[list[Job]]:
    """Cut into parts that take half a second or so: before each, those whose caller has left are dropped."""
    group: list[Job] = []
    for job in jobs:
        group.append(job)
        if sum(len(row.ids) for job in group for row in job.tokens) >= _GROUP_TOKENS:
            yield group
            group = []
    if group:
        yield group
