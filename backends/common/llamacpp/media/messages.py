"""The messages between the backend and the process that encodes images and audio."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Image(NamedTuple):
    """An image with 8 bits per channel, row by row from the top."""

    width: int
    height: int
    pixels: bytes


class Audio(NamedTuple):
    """Mono float32 samples from -1 to 1, at the projector's sample rate."""

    samples: bytes


class Chunk(NamedTuple):
    """A part of an encoded image or audio file: tokens that mark its beginning or end, or embeddings.

    `positions` are those of the embeddings, [4, number of embeddings] for models with two-dimensional positions and
    otherwise [1, number], if the first one has position 0; `steps` is what they grow by if that one has position 1.
    The tokens after them continue at `num_positions`. Embeddings that are not `causal` attend to each other.
    """

    tokens: Sequence[int] = ()
    embeddings: npt.NDArray[np.float32] | None = None
    positions: npt.NDArray[np.int32] | None = None
    steps: npt.NDArray[np.int32] | None = None
    num_positions: int = 0
    is_causal: bool = True


class Ready(NamedTuple):
    """The projector is loaded. `sample_rate` is 0 if it does not accept audio."""

    accepts_images: bool
    sample_rate: int


class Encoded(NamedTuple):
    """The result for one image or audio file, or why there is none."""

    chunks: list[Chunk]
    error: str = ""
    is_client_error: bool = False
