"""Embedding and rerank models in GGUF files, on llama.cpp: the same interfaces as in tokens.py and network.py."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.common.errors import InvalidRequest
from backends.common.llamacpp.batch import TokenBatch
from backends.common.llamacpp.library import GGUF, LIBRARIES, LibraryError, attach_threads, load_library, load_model
from backends.common.llamacpp.vocabulary import LlamaVocabulary
from backends.encoder.network import Array, normalize
from backends.encoder.tokens import LimitedTokenizer, Text, Tokens
from contract.parameters import EncoderParameters
from contract.tensors import MAX_ROWS

_POOLINGS = {"mean": 1, "cls": 2, "last": 3, "rank": 4}
_FLASH_ATTENTION = 1


class LlamaTextTokenizer(LimitedTokenizer):
    """The tokenizer of a GGUF file. Pairs are joined as in llama.cpp's server, or by the `template` if there is one."""

    def __init__(self, folder: Path, max_tokens: int, template: str | None = None):
        self._vocabulary = vocabulary = LlamaVocabulary(folder)
        super().__init__(max_tokens, vocabulary.size)
        self._template, self._middle = template, vocabulary.separators()
        self._head, _, self._tail = (template or "").partition("{document}")
        if template is None:
            plain, whole = vocabulary.encode("x"), vocabulary.encode("x", add_special=True)
            start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
            self._first, self._last = whole[:start], whole[start + len(plain) :]
        else:
            self._first, self._last = [], vocabulary.encode(self._tail)
        self._room = max_tokens - len(self._first) - len(self._last)

    def encode(self, texts: Sequence[Text], truncate: Sequence[bool]) -> list[Tokens | InvalidRequest]:
        """Return, for each text, its tokens or an error.

        A text results in an error if it is too long and truncation is not allowed.
        """
        return [self._encode(*row) for row in zip(texts, truncate, strict=True)]

    def _encode(self, text: Text, truncate: bool) -> Tokens | InvalidRequest:
        ids = self._whole(text)
        if len(ids) > self.max_tokens:
            if not truncate:
                return self.too_long(len(ids), " Set 'truncate' to true to truncate it.")
            ids = self._truncated(text)
        return Tokens(ids, [0] * len(ids))

    def _whole(self, text: Text) -> list[int]:
        encode = self._vocabulary.encode
        if isinstance(text, str):
            return [*self._first, *encode(text), *self._last]
        query, document = text
        if self._template is not None:
            return encode(self._head.replace("{query}", query) + document + self._tail)
        return [*self._first, *encode(query), *self._middle, *encode(document), *self._last]

    def _truncated(self, text: Text) -> list[int]:
        """Return the tokens of a text or document that is shortened to the limit, of a query to half of it."""
        encode, room = self._vocabulary.encode, self._room
        if isinstance(text, str):
            return [*self._first, *encode(text)[:room], *self._last]
        query, document = encode(text[0]), text[1]
        if self._template is not None:
            limit = max(1, (room - len(encode(self._head.replace("{query}", "")))) // 2)
            short = text[0] if len(query) <= limit else self._vocabulary.decode(query[:limit])
            return [*encode(self._head.replace("{query}", short) + document)[:room], *self._last]
        before = [*query[: max(1, (room - len(self._middle)) // 2)], *self._middle]
        return [*self._first, *before, *encode(document)[: room - len(before)], *self._last]


class LlamaNetwork:
    """Computes one vector or score per row. llama.cpp pools by itself, and needs no padding."""

    def __init__(self, folder: Path, parameters: EncoderParameters):
        self._llama = llama = load_library(folder / LIBRARIES)
        model = load_model(llama, folder / GGUF)
        if llama.llama_model_has_encoder(model):
            raise LibraryError("Models with an encoder and a decoder are not supported")
        size = max(parameters.max_batch_tokens, parameters.context_length)
        threads = parameters.threads or len(os.sched_getaffinity(0))
        settings = llama.llama_context_default_params()
        # All tokens of a row must be in one batch, because attention or pooling needs all of them at once.
        settings.n_ctx = settings.n_batch = settings.n_ubatch = size
        settings.n_seq_max, settings.kv_unified, settings.embeddings = MAX_ROWS, True, True
        settings.n_threads = settings.n_threads_batch = threads
        settings.pooling_type, settings.flash_attn_type = _POOLINGS[parameters.pooling], _FLASH_ATTENTION
        self._context = llama.llama_init_from_model(model, settings)
        if not self._context:
            raise LibraryError("llama.cpp could not create a context; its log says why")
        attach_threads(llama, self._context, threads)
        self._memory = llama.llama_get_memory(self._context)
        self._batch, self._budget = TokenBatch(size), parameters.max_batch_tokens
        self._normalize, self._is_score = parameters.normalize, parameters.pooling == "rank"
        num_outputs = llama.llama_model_n_cls_out(model)
        if self._is_score and num_outputs > 1 and (num_outputs > 2 or not _has_softmax(llama, model)):
            raise LibraryError(f"A classifier with {num_outputs} outputs is not a reranker")
        self._width = llama.llama_model_n_cls_out(model) if self._is_score else llama.llama_model_n_embd_out(model)

    def run(self, rows: Sequence[Tokens]) -> Array:
        """Return one vector or score per row, as an array [rows, width], in the order of `rows`."""
        result = np.concatenate([self._run_batch(batch) for batch in self._batches(rows)])
        if self._is_score:
            return _scores(result)
        return normalize(result) if self._normalize else result

    def warm_up(self) -> None:
        """See `Network`."""
        self.run([Tokens([1] * 16, [0] * 16)])

    def _batches(self, rows: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """Yield batches of at most `max_batch_tokens` tokens. A longer row is a batch of its own."""
        batch: list[Tokens] = []
        for row in rows:
            if batch and (sum(len(each.ids) for each in [*batch, row]) > self._budget or len(batch) == MAX_ROWS):
                yield batch
                batch = []
            batch.append(row)
        yield batch

    def _run_batch(self, rows: Sequence[Tokens]) -> Array:
        self._batch.clear()
        for index, row in enumerate(rows):
            self._batch.add(index, 0, row.ids, len(row.ids))
        if self._memory:
            self._llama.llama_memory_clear(self._memory, False)
        if result := self._llama.llama_decode(self._context, self._batch.native):
            raise RuntimeError(f"llama.cpp failed to compute a batch ({result})")
        get = self._llama.llama_get_embeddings_seq
        return np.stack([np.ctypeslib.as_array(get(self._context, i), (self._width,)).copy() for i in range(len(rows))])


def _has_softmax(llama: Any, model: Any) -> bool:
    """Return whether llama.cpp turns the outputs of a classifier of this architecture into probabilities."""
    name = ctypes.create_string_buffer(64)
    llama.llama_model_meta_val_str(model, b"general.architecture", name, len(name))
    return name.value in (b"qwen3", b"qwen3vl")


def _scores(outputs: Array) -> Array:
    """Return the logits of rows of outputs: a single one is a logit, two are the probabilities of yes and no."""
    if outputs.shape[1] == 1:
        return outputs
    with np.errstate(divide="ignore"):
        scores: Array = np.log(outputs[:, :1]) - np.log(outputs[:, 1:2])
    return scores
