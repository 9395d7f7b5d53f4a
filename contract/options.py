"""The options of a request to a model: the JSON in the input tensors `options` and `sampling_parameters`."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self, TypedDict

GENERATION_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""The sampling parameters that a publisher may recommend for a model.

The parameter `generation_defaults` in a chat model's configuration is a JSON object with some of them.
"""


class SamplingParameters(TypedDict, total=False):
    """The `sampling_parameters` input of chat models.

    An absent field has OpenAI's default value. An absent field that is not part of OpenAI's API has no effect.
    """

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
    top_logprobs: int
    """How many of the most likely tokens to report with each token; needs `logprobs`."""
    logit_bias: dict[str, float]
    """Token ID → value to add to the token's logit."""
    stream: bool
    """Whether to send text as it is generated; true if absent. The frontend always sets this field."""
    echo: bool
    """Whether the output begins with the prompt."""
    chat_template_kwargs: dict[str, Any]
    adapter: str
    """The name of the LoRA adapter with which the model answers."""
    visible_tokens: list[str]
    """Special tokens to keep in the output text."""
    constraint: dict[str, Any]
    """The constraint on the output, as JSON; see contract/constraints.py."""


class _Options:
    """Options that are sent as a JSON object."""

    def to_json(self) -> str:
        """Return the options as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, content: bytes | str) -> Self:
        """Return the options parsed from a request's JSON.

        Raises ValueError if `content` is not JSON, or TypeError if it is not an object or has an unknown option.
        """
        return cls(**json.loads(content))


@dataclass(frozen=True)
class TranscriptionOptions(_Options):
    """Options of a transcription. If `language` is None, the model detects the language."""

    language: str | None = None
    prompt: str | None = None
    task: str = "transcribe"
    """`transcribe`, or `translate` to translate into English"""
    temperature: float = 0.0
    word_timestamps: bool = False
    vad: bool = True
    """Whether to skip audio without speech (voice activity detection)."""


@dataclass(frozen=True)
class SpeechOptions(_Options):
    """Options of speech synthesis. If `voice` is None and there is no reference audio, the default voice is used."""

    voice: str | None = None
    speed: float = 1.0
    format: str = "mp3"
    reference_text: str | None = None
    """The words spoken in the reference audio, if the model needs them."""


@dataclass(frozen=True)
class BackgroundRemovalOptions(_Options):
    """Options of background removal. `refine` aligns the edges of the mask with edges in the image."""

    format: str = "png"
    refine: bool = False


@dataclass(frozen=True)
class ImageGenerationOptions(_Options):
    """Options of image generation.

    The backend chooses the values of fields that are None, most of them from the model's parameters.
    """

    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    n: int = 1
    seed: int | None = None
    quality: str = "standard"
    """`standard` or `hd`: selects the default of `num_inference_steps`"""
    style: str = "vivid"
    """`vivid` or `natural`: selects the default of `guidance_scale`"""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    partial_images: int = 0
    format: str = "png"
    compression: int = 90
    """The quality of a JPEG or WebP image, from 0 to 100."""

    @property
    def size(self) -> tuple[int, int] | None:
        """The width and the height in pixels, or None if the request does not set both."""
        return None if self.width is None or self.height is None else (self.width, self.height)
