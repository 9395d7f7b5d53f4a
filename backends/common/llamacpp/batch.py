"""A batch of tokens in the memory layout of llama.cpp."""

import ctypes
from collections.abc import Sequence

import numpy as np

from backends.common.llamacpp.library import Batch


class TokenBatch:
    """A batch of at most `size` tokens of several sequences. `native` is llama.cpp's structure for it."""

    def __init__(self, size: int):
        self.size = size
        self._tokens, self.positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self._counts, self._sequences = np.ones(size, np.int32), np.zeros(size, np.int32)
        self._outputs = np.zeros(size, np.int8)
        self._pointers = self._sequences.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        as_ints, ints = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))
        self.native = Batch(
            token=self._tokens.ctypes.data_as(as_ints),
            pos=self.positions.ctypes.data_as(as_ints),
            n_seq_id=self._counts.ctypes.data_as(as_ints),
            seq_id=self._pointers.ctypes.data_as(ints),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def __len__(self) -> int:
        return int(self.native.n_tokens)

    def clear(self) -> None:
        """Remove all tokens."""
        self.native.n_tokens = 0

    def add(self, sequence: int, position: int, tokens: Sequence[int], num_outputs: int) -> None:
        """Add tokens of a sequence, from a position on. The last `num_outputs` of them have an output."""
        start, end = len(self), len(self) + len(tokens)
        self._tokens[start:end] = tokens
        self.positions[start:end] = np.arange(position, position + len(tokens))
        self._sequences[start:end], self._outputs[start:end] = sequence, 0
        self._outputs[end - num_outputs : end] = 1
        self.native.n_tokens = end
