"""The request bodies and forms of image generation, edits and variations."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from contract.options import ImageGenerationOptions
from frontend.errors import InvalidRequest
from frontend.http.body import RequestBody
from frontend.http.multipart import FormBody

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def _check_size(value: Any) -> Any:
    if not isinstance(value, str) or not (value == "auto" or _SIZE.fullmatch(value)):
        raise ValueError("must be 'auto' or WIDTHxHEIGHT")
    return value


Size = Annotated[str, BeforeValidator(_check_size)]
Prompt = Annotated[str, Field(min_length=1, max_length=32_000, pattern=r"\S")]


class ImageFields(BaseModel):
    """The fields that all three kinds of requests share: OpenAI's fields, and common fields of other image servers."""

    model: str | None = Field(
        None, description="ID, name or alias of the model. The default image generation model if omitted."
    )
    n: int = Field(1, ge=1, le=10, description="Number of images.")
    size: Size = Field(
        "auto",
        description="`WIDTHxHEIGHT` in multiples of 8 pixels (FLUX: 16). With `auto`, a generated image has the "
        "model's default size; an edit or variation has the size of the input image, scaled down if that "
        "image is too large.",
    )
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] = Field(
        "auto",
        description="`hd`, `high`, `xhigh` and `max` use more steps than the other values, unless "
        "`num_inference_steps` is set.",
    )
    style: Literal["vivid", "natural"] = Field(
        "vivid",
        description="`vivid` follows the prompt more closely than `natural`, unless `guidance_scale` is set or the "
        "model works without guidance.",
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        None,
        description="If omitted, the format is `b64_json` if `model` starts with `gpt-image` or `chatgpt-image`, and "
        "`url` otherwise. Ignored with `stream`: streamed images are always base64.",
    )
    output_format: Literal["png", "jpeg", "webp"] = Field("png", description="File format of the images.")
    output_compression: int = Field(90, ge=0, le=100, description="Quality of JPEG and WebP files; 100 is the best.")
    background: Literal["auto", "opaque", "transparent"] = Field(
        "auto", description="`transparent` is rejected: the models do not support it."
    )
    stream: bool = Field(False, description="Stream OpenAI's image events.")
    partial_images: int = Field(0, ge=0, le=3, description="Maximum number of previews per image; requires `stream`.")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Random seed. The same seed yields the same image. With `n` above 1, the images use consecutive "
        "seeds, starting with this one.",
    )
    negative_prompt: str | None = Field(
        None,
        max_length=32_000,
        description="What the image should not show. Rejected if the model does not support it.",
    )
    num_inference_steps: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Number of denoising steps. If omitted, the number depends on `quality` and the model.",
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=100,
        description="How closely to follow the prompt. If omitted, the value depends on `style` and the model.",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="How much an edit or variation may change the input image. If omitted, the value is 1 for an edit "
        "of only a masked or transparent area, and the model's default otherwise.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.background == "transparent":
            raise InvalidRequest("'background': transparent is not supported", param="background")
        if self.partial_images and not self.stream:
            raise InvalidRequest("'partial_images' requires 'stream': true", param="partial_images")
        return self

    def returns_urls(self) -> bool:
        """Return whether to return URLs. Names of OpenAI's GPT Image models default to base64, as in OpenAI's API."""
        if self.response_format is None:
            return not (self.model or "").startswith(("gpt-image", "chatgpt-image"))
        return self.response_format == "url"

    def options(self, format: str) -> ImageGenerationOptions:
        """Return the options for the backend. `format` is that of the images."""
        size = _SIZE.fullmatch(self.size)
        return ImageGenerationOptions(
            negative_prompt=self.negative_prompt,
            width=int(size[1]) if size else None,
            height=int(size[2]) if size else None,
            n=self.n,
            seed=self.seed,
            quality="standard" if self.quality in _STANDARD else "hd",
            style=self.style,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            strength=self.strength,
            partial_images=self.partial_images,
            format=format,
            compression=self.output_compression,
        )


_STANDARD = ("auto", "standard", "low", "medium")


class GenerationRequest(ImageFields, RequestBody):
    """The request body of OpenAI's createImage."""

    prompt: Prompt = Field(
        description="Description of the image. If it is too long for the model, words at its end are dropped."
    )


class EditForm(ImageFields, FormBody):
    """The form fields of createImageEdit, except the files."""

    prompt: Prompt = Field(
        description="Description of the edited image. If it is too long for the model, words at its end are dropped."
    )


class VariationForm(ImageFields, FormBody):
    """The form fields of createImageVariation, except the file."""
