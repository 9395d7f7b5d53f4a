"""The messages between the backend and the engine process."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from backends.common.llamacpp.media.assembly import Embeddings

TopLogprobs = Sequence[tuple[int, float]]
"""Token IDs and their log probabilities."""


class Generate(NamedTuple):
    """Backend to engine: continue a prompt.

    `prompt_ids` are int64 token IDs in native byte order. `remaining_context` is how many tokens fit into the context
    after the prompt. Where `embeddings` stand, the token IDs are negative; equal IDs stand for equal embeddings.
    """

    request_id: int
    client: str
    prompt_ids: bytes
    parameters: dict[str, Any]
    remaining_context: int
    embeddings: tuple[Embeddings, ...] = ()


class RGBImage(NamedTuple):
    """An image with 8 bits per channel, row by row from the top.

    `tokens` is the number of image tokens that stand for the image in the prompt. The tokens that mark the beginning
    and end of an image do not count.
    """

    width: int
    height: int
    pixels: bytes
    tokens: int


class GenerateWithImages(NamedTuple):
    """Backend to engine: continue a prompt on a vision model of OpenVINO.

    In `text`, the engine's tags stand for the images.
    """

    request_id: int
    client: str
    text: str
    rgb_images: tuple[RGBImage, ...]
    parameters: dict[str, Any]
    remaining_context: int


class Cancel(NamedTuple):
    """Backend to engine: stop this request, whether it runs or waits."""

    request_id: int


class Ready(NamedTuple):
    """Engine to backend: the model is loaded and warmed up."""


class ReadyToRestart(NamedTuple):
    """Engine to backend: the engine is idle and has received so many grammars that it should restart to free memory."""


class Shutdown(NamedTuple):
    """Backend to engine: exit. The backend has no unfinished requests in this engine."""


class Gauges(NamedTuple):
    """The engine's load: the numbers of running and waiting requests, and the used fraction of the KV cache, 0 to 1."""

    running: int = 0
    waiting: int = 0
    cache_usage: float = 0.0


class TokenScore(NamedTuple):
    """The log probability of a token of a prompt; None for the first token."""

    token: int
    logprob: float | None
    top: TopLogprobs = ()


class NewTokens(NamedTuple):
    """New tokens of a request, their log probabilities if requested, and why the request ended (None if it goes on)."""

    request_id: int
    tokens: list[int]
    finish_reason: str | None
    logprobs: Sequence[float] = ()
    top_logprobs: Sequence[TopLogprobs] = ()
    """For each token, if requested: the most likely tokens and their log probabilities, in descending order."""
    cached_tokens: int | None = None
    """How many tokens of the prompt were not computed, because the KV cache had them. With the first tokens only."""
    prompt_scores: Sequence[TokenScore] = ()
    """The log probabilities of all tokens of the prompt, if requested. With the first tokens only."""


class StepResult(NamedTuple):
    """Engine to backend: the new tokens since the last message, if any, and the engine's load."""

    new_tokens: list[NewTokens]
    gauges: Gauges


class Failed(NamedTuple):
    """Engine to backend: this request failed.

    `is_client_error` is whether the request is invalid; `param` is the request field at fault, if known.
    """

    request_id: int
    message: str
    is_client_error: bool = False
    param: str | None = None
