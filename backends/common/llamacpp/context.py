"""A GGUF model in memory: it computes the logits of batches of tokens."""

import ctypes
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backends.common.llamacpp.batch import TokenBatch
from backends.common.llamacpp.library import (
    ADAPTERS,
    GGUF,
    LIBRARIES,
    MAX_SEQUENCES,
    Batch,
    LibraryError,
    attach_threads,
    load_gpu,
    load_library,
    load_model,
)
from backends.common.llamacpp.pace import Pace

_FLASH_ATTENTION = 1
_NO_SPACE = 1
_ALL_LAYERS = 9_999

KEPT_SEQUENCES = 32
"""How many finished sequences the KV cache can keep in addition to the running ones."""


Saved = npt.NDArray[np.uint8]
"""The keys and values of a sequence."""


class Piece(NamedTuple):
    """Tokens to compute for one sequence, from a position on."""

    sequence: int
    position: int
    tokens: Sequence[int]
    num_outputs: int
    """For how many of the last tokens the logits are needed."""


class NoSpace(Exception):
    """llama.cpp found no free cells for a batch. The sequences are unchanged."""


class LlamaContext:
    """The model and the KV cache of a version folder.

    `cells` is the size of the KV cache in tokens, `max_batch` the maximum number of tokens in a call of `decode`.
    """

    def __init__(
        self, folder: Path, *, cells: int, max_batch: int, max_running: int, threads: int, on_gpu: bool = False
    ):
        self.llama = llama = load_library(folder / LIBRARIES)
        if on_gpu:
            load_gpu(folder / LIBRARIES)
        model = load_model(llama, folder / GGUF, gpu_layers=_ALL_LAYERS if on_gpu else 0)
        # Before the context, whose buffers depend on the number of adapters.
        self.adapters, self._adapter = _load_adapters(llama, model, folder), ""
        self._has_switched = False
        self.vocabulary = llama.llama_model_get_vocab(model)
        self._vocabulary_size = llama.llama_vocab_n_tokens(self.vocabulary)
        self._embedding_width = llama.llama_model_n_embd_inp(model)
        self.end_tokens: npt.NDArray[np.int32] = np.array(
            [i for i in range(self._vocabulary_size) if llama.llama_vocab_is_eog(self.vocabulary, i)], np.int32
        )
        self._control_tokens = frozenset(
            i for i in range(self._vocabulary_size) if llama.llama_vocab_is_control(self.vocabulary, i)
        )
        if llama.llama_model_has_encoder(model):
            raise LibraryError("Models with an encoder are not supported")
        # A recurrent model has one state per sequence, which cannot be shared or cut. With a sliding window, llama.cpp
        # drops and overwrites the cells outside of it, so a kept sequence may have lost its beginning.
        has_state = llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model)
        self.shares_prefixes = not has_state and llama.llama_model_n_swa(model) == 0
        self.max_sequences = min(max_running + KEPT_SEQUENCES, MAX_SEQUENCES)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = cells, self.max_sequences, True
        params.n_batch = params.n_ubatch = max_batch
        params.n_outputs_max = self.max_sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = _FLASH_ATTENTION
        self._context = llama.llama_init_from_model(model, params)
        if not self._context:
            raise LibraryError("llama.cpp could not create the KV cache; its log says why")
        attach_threads(llama, self._context, threads)
        self._pace = Pace(threads)
        self._memory = llama.llama_get_memory(self._context)
        self.cells: int = llama.llama_n_ctx(self._context)
        self._batch = TokenBatch(max_batch)

    def use_adapter(self, name: str) -> None:
        """Compute the next batches with this adapter, or without one if the name is empty."""
        if name == self._adapter:
            return
        adapters = (ctypes.c_void_p * 1)(self.adapters[name] if name else None)
        self.llama.llama_set_adapters_lora(self._context, adapters, 1 if name else 0, (ctypes.c_float * 1)(1.0))
        self._adapter, self._has_switched = name, True

    def decode(self, pieces: Sequence[Piece]) -> npt.NDArray[np.float32]:
        """Compute pieces, and return the logits [outputs of all pieces, vocabulary], valid until the next call.

        Raises NoSpace if the KV cache is full, and RuntimeError if llama.cpp fails.
        """
        batch = self._batch
        batch.clear()
        for piece in pieces:
            batch.add(piece.sequence, piece.position, piece.tokens, piece.num_outputs)
        started, threads = time.perf_counter(), self._pace.threads
        result = self.llama.llama_decode(self._context, batch.native)
        end = len(batch)
        if not self._has_switched:  # after a switch of the adapter, llama.cpp allocates its buffers again
            self._pace.record(end, int(batch.positions[:end].max()), time.perf_counter() - started)
        self._has_switched = False
        if self._pace.threads != threads:
            self.llama.llama_set_n_threads(self._context, self._pace.threads, self._pace.threads)
        _check(result)
        rows = sum(piece.num_outputs for piece in pieces)
        if not rows:
            return np.empty((0, self._vocabulary_size), np.float32)
        return np.ctypeslib.as_array(self.llama.llama_get_logits(self._context), (rows, self._vocabulary_size))

    def decode_embeddings(
        self,
        sequence: int,
        values: npt.NDArray[np.float32],
        positions: npt.NDArray[np.int32],
        *,
        is_causal: bool = True,
    ) -> None:
        """Compute embeddings [number, width] at positions [4 or 1, number] of a sequence.

        Raises ValueError if they do not fit the model, NoSpace and RuntimeError.
        """
        number, width = values.shape
        if width != self._embedding_width or number > self._batch.size:
            raise ValueError(f"{number} embeddings with {width} values do not fit the model")
        values, positions = np.ascontiguousarray(values), np.ascontiguousarray(positions)
        self._batch.clear()
        self._batch.add(sequence, 0, [0] * number, 0)
        batch = Batch.from_buffer_copy(self._batch.native)
        batch.token = None
        batch.embd = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch.pos = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self.llama.llama_set_causal_attn(self._context, is_causal)
        try:
            _check(self.llama.llama_decode(self._context, batch))
        finally:
            self.llama.llama_set_causal_attn(self._context, True)

    def hidden_tokens(self, visible: Iterable[str]) -> npt.NDArray[np.int32]:
        """Return the control tokens that have no text in an answer: all except end tokens and the `visible` ones."""
        hidden, ids = self._control_tokens - set(self.end_tokens.tolist()), np.empty(8, np.int32)
        for text in map(str.encode, visible):
            count = self.llama.llama_tokenize(self.vocabulary, text, len(text), ids.ctypes.data, len(ids), False, True)
            hidden -= {int(ids[0])} if count == 1 else set()
        return np.fromiter(hidden, np.int32, len(hidden))

    def copy(self, source: int, target: int, end: int) -> None:
        """Let the sequence `target` share the cells of `source` before the position `end`."""
        self.llama.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def remove(self, sequence: int, start: int = 0) -> None:
        """Remove the cells of a sequence, from a position on."""
        self.llama.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def saved_size(self, sequence: int) -> int:
        """Return the size in bytes of the keys and values of a sequence."""
        size: int = self.llama.llama_state_seq_get_size(self._context, sequence)
        return size

    def save(self, sequence: int) -> Saved:
        """Return a copy of the keys and values of a sequence."""
        content = np.empty(self.saved_size(sequence), np.uint8)
        size = self.llama.llama_state_seq_get_data(self._context, content.ctypes.data, content.size, sequence)
        return content[:size]

    def restore(self, sequence: int, content: Saved) -> bool:
        """Give an empty sequence the keys and values that `save` returned. Return whether there was space."""
        data = content.ctypes.data
        return bool(self.llama.llama_state_seq_set_data(self._context, data, content.size, sequence))


def _load_adapters(llama: Any, model: Any, folder: Path) -> dict[str, Any]:
    """Return the LoRA adapters in a version folder by their names. Raises LibraryError."""
    adapters = {}
    for path in sorted((folder / ADAPTERS).glob("*.gguf")):
        adapters[path.stem] = llama.llama_adapter_lora_init(model, str(path).encode())
        if not adapters[path.stem]:
            raise LibraryError(f"llama.cpp cannot use the adapter {path.name} with this model; its log says why")
    return adapters


def _check(result: int) -> None:
    """Raise the error for a result of llama_decode."""
    if result == _NO_SPACE:
        raise NoSpace
    if result:
        raise RuntimeError(f"llama.cpp failed to compute a batch ({result})")
