"""Assembles prompts from token IDs and the embeddings of images and audio."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backends.common.llamacpp.media.encoder import Encoding


class Embeddings(NamedTuple):
    """What the model computes in place of the tokens of an image or of audio, from the index `start` of the prompt on.

    `positions` [4 or 1, number] are their positions in the sequence, and `next_position` is that of the token after
    them. Embeddings that are not `is_causal` attend to each other.
    """

    start: int
    values: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int32]
    next_position: int
    is_causal: bool


class Assembly:
    """The tokens and embeddings of a prompt so far."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.embeddings: list[Embeddings] = []
        self._position = 0

    def add_tokens(self, ids: Sequence[int]) -> None:
        """Add tokens."""
        self.ids += ids
        self._position += len(ids)

    def add_file(self, encoding: Encoding) -> None:
        """Add the tokens and embeddings of an image or of audio."""
        # The KV cache compares prompts by their token IDs, so the embeddings get IDs that identify the file.
        random = np.random.default_rng(int.from_bytes(encoding.digest))
        for chunk in encoding.chunks:
            self.add_tokens(chunk.tokens)
            if chunk.embeddings is None or chunk.positions is None or chunk.steps is None:
                continue
            positions = chunk.positions + chunk.steps * self._position
            start, self._position = len(self.ids), self._position + chunk.num_positions
            self.embeddings.append(Embeddings(start, chunk.embeddings, positions, self._position, chunk.is_causal))
            self.ids += random.integers(-(1 << 31), 0, len(chunk.embeddings)).tolist()
