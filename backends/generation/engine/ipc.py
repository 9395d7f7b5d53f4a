"""The messages between the backend and the engine's process."""

from typing import Any, NamedTuple


class Generate(NamedTuple):
    """Backend to engine: generate. `prompt_ids` are int64 in native byte order; `remaining_context` is in tokens."""

    request_id: int
    client: str
    prompt_ids: bytes
    parameters: dict[str, Any]
    remaining_context: int


class RGBImage(NamedTuple):
    """8-bit RGB pixels in rows from the top; `tokens` is how many tokens the image adds to the prompt."""

    width: int
    height: int
    pixels: bytes
    tokens: int


class GenerateWithImages(NamedTuple):
    """Backend to engine: generate, with a vision model. `text` has a tag in place of each image."""

    request_id: int
    client: str
    text: str
    rgb_images: tuple[RGBImage, ...]
    parameters: dict[str, Any]
    remaining_context: int


class Cancel(NamedTuple):
    """Backend to engine: stop this request."""

    request_id: int


class Ready(NamedTuple):
    """Engine to backend: the model is loaded and warmed up."""


class ReadyToRestart(NamedTuple):
    """Engine to backend: the engine is idle and holds so many compiled grammars that it should be restarted."""


class Shutdown(NamedTuple):
    """Backend to engine: exit; no request is on its way."""


class Gauges(NamedTuple):
    """The engine's load after a step; `cache_usage` is from 0 to 1."""

    running: int = 0
    waiting: int = 0
    cache_usage: float = 0.0


class NewTokens(NamedTuple):
    """New tokens of a request, their `logprobs` if requested, and why the request ended (None if it continues)."""

    request_id: int
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str | None


class StepResult(NamedTuple):
    """Engine to backend: the new tokens of each request, and the engine's load."""

    new_tokens: list[NewTokens]
    gauges: Gauges


class Failed(NamedTuple):
    """Engine to backend: this request failed."""

    request_id: int
    message: str
    is_client_error: bool = False
    param: str | None = None
