"""The options of a request to a model: the JSON in the inputs `options` and `sampling_parameters`."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self, TypedDict


class SamplingParameters(TypedDict, total=False):
    """The `sampling_parameters` input of chat models; absent fields have OpenAI's defaults."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    max_tokens: int
    min_tokens: int
    seed: int
    stop: list[str]
    ignore_eos: bool
    logprobs: bool
    stream: bool
    """Whether to send text as it is generated."""
    echo: bool
    """Whether the output begins with the prompt."""
    chat_template_kwargs: dict[str, Any]
    visible_tokens: list[str]
    """Special tokens to keep in the output text."""
    constraint: dict[str, Any]
    """The constraint on the output; see constraints.py."""


class _Options:
    """Options that are sent as a JSON object."""

    def to_json(self) -> str:
        """Return the options as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, content: bytes | str) -> Self:
        """Return the options in a request's JSON. Raises TypeError if an option is unknown."""
        return cls(**json.loads(content))


@dataclass(frozen=True)
class TranscriptionOptions(_Options):
    """Options of a transcription. If `language` is None, the model detects it."""

    language: str | None = None
    prompt: str | None = None
    task: str = "transcribe"
    """transcribe or translate"""
    temperature: float = 0.0
    word_timestamps: bool = False
    vad: bool = True
    """Whether to skip audio without speech (voice activity detection)."""


@dataclass(frozen=True)
class SpeechOptions(_Options):
    """Options of speech synthesis. If `voice` is None, the model uses its default."""

    voice: str | None = None
    speed: float = 1.0
    format: str = "mp3"


@dataclass(frozen=True)
class BackgroundRemovalOptions(_Options):
    """Options of background removal. `refine` aligns the edge of the mask with edges in the image."""

    format: str = "png"
    refine: bool = False


@dataclass(frozen=True)
class ImageGenerationOptions(_Options):
    """Options of image generation. Fields that are None take the model's defaults."""

    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    n: int = 1
    seed: int | None = None
    quality: str = "standard"
    """standard or hd"""
    style: str = "vivid"
    """vivid or natural"""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    partial_images: int = 0
    format: str = "png"
    compression: int = 90
    """JPEG or WebP quality, at most 100."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, or None unless the request sets both."""
        return None if self.width is None or self.height is None else (self.width, self.height)
