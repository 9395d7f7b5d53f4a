"""Triton Python backend for embedding and rerank: converts a batch of requests to vectors or scores."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backends.common.errors import InvalidRequest
from backends.common.llamacpp.library import GGUF
from backends.common.triton import (
    error_response,
    has_input,
    load_model_config,
    read_strings,
    request_parameters,
    response,
)
from backends.encoder.network import Network, OnnxNetwork
from backends.encoder.request import EncodeRequest, tokenize
from backends.encoder.tokens import Text, TextTokenizer, Tokenizer
from contract.parameters import EncoderParameters
from contract.tensors import TENSORS

log = logging.getLogger(__name__)

_OUTPUT = {"embedding": "embedding", "rerank": "score"}
_GROUP_TOKENS = 8192

# Tokenize on one thread: waking the tokenizer's own threads takes longer than tokenizing most texts, and the network
# needs the cores anyway.
os.environ["TOKENIZERS_PARALLELISM"] = "false"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args, EncoderParameters)
        self._tensors, self._output = TENSORS[parameters.task], _OUTPUT[parameters.task]
        self._prompts = {"query": parameters.query_prompt, "document": parameters.document_prompt}
        self._tokenizer, self._network = _open(folder, parameters)
        self._network.warm_up()

    def execute(self, requests: list[Any]) -> list[Any]:
        items = [self._read(request) for request in requests]
        _run_step(lambda batch: tokenize(batch, self._tokenizer), items)
        groups = list(_groups([item for item in items if item.tokens]))
        for group in groups:
            _run_step(self._compute, group if len(groups) == 1 else [item for item in group if not item.has_failed()])
        return [self._respond(item) for item in items]

    def _read(self, request: Any) -> EncodeRequest:
        try:
            parameters = request_parameters(request)
            if parameters.get("probe"):
                return EncodeRequest()
            if has_input(request, "token_ids"):
                return EncodeRequest(request.is_cancelled, token_ids=read_strings(request, "token_ids"))
            texts = self._texts(request, parameters)
            return EncodeRequest(request.is_cancelled, texts=texts, truncate=bool(parameters.get("truncate")))
        except ValueError as error:
            return EncodeRequest(failure=InvalidRequest(f"Malformed input: {error}"))

    def _texts(self, request: Any, parameters: dict[str, Any]) -> list[Text]:
        """Return the request's (query, document) pairs, or its texts, each after the prompt for the input type."""
        if has_input(request, "query"):
            queries, documents = (
                [value.decode() for value in read_strings(request, name)] for name in ("query", "document")
            )
            return list(zip(queries, documents, strict=True))
        prompt = self._prompts.get(parameters.get("input_type", "document"), "")
        return [prompt + value.decode() for value in read_strings(request, "text")]

    def _compute(self, items: list[EncodeRequest]) -> None:
        rows = self._network.run([row for item in items for row in item.tokens])
        if len(items) > 1 and not np.isfinite(rows).all():
            raise ArithmeticError("a row has a non-finite value, which corrupts the other rows in an int8 model")
        ends = np.cumsum([len(item.tokens) for item in items])
        for item, end in zip(items, ends, strict=True):
            item.finish(rows[end - len(item.tokens) : end])

    def _respond(self, item: EncodeRequest) -> Any:
        if item.failure:
            return error_response(item.failure)
        if item.rows is None:
            return response(self._tensors)
        counts = np.array([[len(row.ids)] for row in item.tokens], np.int32)
        return response(self._tensors, **{self._output: item.rows}, num_input_tokens=counts)


def _open(folder: Path, parameters: EncoderParameters) -> tuple[Tokenizer, Network]:
    """Load the model in a version folder: a GGUF file on llama.cpp, or an ONNX file on onnxruntime."""
    if (folder / GGUF).exists():
        from backends.encoder.llamacpp import LlamaNetwork, LlamaTextTokenizer  # needs the libraries of llama.cpp

        tokenizer = LlamaTextTokenizer(folder, parameters.context_length, parameters.template)
        return tokenizer, LlamaNetwork(folder, parameters)
    tokenizer_file = folder / "tokenizer.json"
    return TextTokenizer(tokenizer_file, parameters.context_length, parameters.template), OnnxNetwork(
        folder, parameters
    )


def _run_step(step: Callable[[list[EncodeRequest]], None], items: list[EncodeRequest]) -> None:
    """Run a step for all requests at once. If it fails, run it for each request, so that only faulty requests fail."""
    if not items:
        return
    try:
        step(items)
    except Exception as error:
        if len(items) == 1:
            log.exception("a request failed")
            items[0].failure = error
        else:
            for item in items:
                _run_step(step, [item])


def _groups(items: list[EncodeRequest]) -> Iterator[list[EncodeRequest]]:
    """Yield groups of requests, so that cancelled requests can be dropped between groups.

    A group ends once it has _GROUP_TOKENS tokens, which take about half a second.
    """
    group: list[EncodeRequest] = []
    for item in items:
        group.append(item)
        if sum(len(row.ids) for item in group for row in item.tokens) >= _GROUP_TOKENS:
            yield group
            group = []
    if group:
        yield group
