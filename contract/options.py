"""What a request asks of a model besides its text and files: the JSON in `options` and `sampling_parameters`."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self, TypedDict


class SamplingParameters(TypedDict, total=False):
    """The input `sampling_parameters` of chat models; what is absent has OpenAI's default."""

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
    """Whether text is wanted before the end."""
    echo: bool
    """The output begins with the prompt."""
    chat_template_kwargs: dict[str, Any]
    visible_tokens: list[str]
    """Special tokens to write out."""
    constraint: dict[str, Any]
    """What the output must match: see constraints.py."""


class _Options:
    """Options travel as a JSON object."""

    def to_json(self) -> str:
        """Return the options as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, content: bytes | str) -> Self:
        """Return the options that a request has. Raises TypeError for an unknown one."""
        return cls(**json.loads(content))


@dataclass(frozen=True)
class TranscriptionOptions(_Options):
    """How to transcribe a file; language None: detect it."""

    language: str | None = None
    prompt: str | None = None
    task: str = "transcribe"
    """transcribe or translate"""
    temperature: float = 0.0
    word_timestamps: bool = False
    vad: bool = True
    """Leave out what is not speech."""


@dataclass(frozen=True)
class SpeechOptions(_Options):
    """How to speak a text; voice None: the model's default."""

    voice: str | None = None
    speed: float = 1.0
    format: str = "mp3"


@dataclass(frozen=True)
class BackgroundRemovalOptions(_Options):
    """`refine`: align the edge of the mask with the edges in the image."""

    format: str = "png"
    refine: bool = False


@dataclass(frozen=True)
class ImageGenerationOptions(_Options):
    """What images to make; None: as the model is configured."""

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
    """The quality of a JPEG or WebP, up to 100."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, if the request has them."""
        return None if self.width is None or self.height is None else (self.width, self.height)
