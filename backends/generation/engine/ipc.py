"""What the backend and its engine's process say to each other."""

from typing import Any, NamedTuple


class Generate(NamedTuple):
    """Backend to engine: generate. `prompt_ids` are int64 in memory order; `remaining_context` is in tokens."""

    number: int
    client: str
    prompt_ids: bytes
    parameters: dict[str, Any]
    remaining_context: int


class RGBImage(NamedTuple):
    """RGB in rows from the top, 8 bits each; `tokens` is what it adds to the prompt."""

    width: int
    height: int
    pixels: bytes
    tokens: int


class GenerateWithImages(NamedTuple):
    """Backend to engine: generate, by a model that sees. `text` has a tag in place of each picture."""

    number: int
    client: str
    text: str
    rgb_images: tuple[RGBImage, ...]
    parameters: dict[str, Any]
    remaining_context: int


class Cancel(NamedTuple):
    """Backend to engine: nobody wants this answer any more."""

    number: int


class Ready(NamedTuple):
    """Engine to backend: the model is loaded and warm."""


class ReadyToRestart(NamedTuple):
    """Engine to backend: I have nothing to do, and much in memory; I could end."""


class Shutdown(NamedTuple):
    """Backend to engine: nothing is on its way to you; end."""


class Gauges(NamedTuple):
    """The engine's load after a step; `cache_usage` from 0 to 1."""

    running: int = 0
    waiting: int = 0
    cache_usage: float = 0.0


class NewTokens(NamedTuple):
    """New tokens of a request, and why it ended (None: more to come). `logprobs` are the tokens', if asked for."""

    number: int
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str | None


class StepResult(NamedTuple):
    """Engine to backend: what each request that moved has made."""

    made: list[NewTokens]
    gauges: Gauges


class Failed(NamedTuple):
    """Engine to backend: this request is over, without an answer."""

    number: int
    message: str
    is_client_error: bool = False
    param: str | None = None
