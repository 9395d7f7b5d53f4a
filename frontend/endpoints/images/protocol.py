"""What the endpoints that make images take."""

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
        raise ValueError('must be "auto" or WIDTHxHEIGHT')
    return value


Size = Annotated[str, BeforeValidator(_check_size)]
Prompt = Annotated[str, Field(min_length=1, max_length=32_000, pattern=r"\S")]


class ImageFields(BaseModel):
    """The fields of all of them: OpenAI's, and those that other servers of diffusion models have."""

    model: str | None = None
    n: int = Field(1, ge=1, le=10)
    size: Size = "auto"
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] = "auto"
    style: Literal["vivid", "natural"] = "vivid"
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(90, ge=0, le=100)
    background: Literal["auto", "opaque", "transparent"] = "auto"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    seed: int | None = Field(None, ge=0, lt=2**63)
    negative_prompt: str | None = Field(None, max_length=32_000)
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    guidance_scale: float | None = Field(None, ge=0, le=100)
    strength: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """OpenAI lets any field be null where it may be left out."""
        return {name: value for name, value in fields.items() if value is not None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.background == "transparent":
            raise InvalidRequest("This model makes no transparent backgrounds", param="background")
        if self.partial_images and not self.stream:
            raise InvalidRequest("'partial_images' needs 'stream': true", param="partial_images")
        return self

    def by_url(self) -> bool:
        """Tell whether the answer is to have URLs. Of OpenAI's models the newer ones have none to offer."""
        if self.response_format is None:
            return not (self.model or "").startswith(("gpt-image", "chatgpt-image"))
        return self.response_format == "url"

    def options(self) -> ImageGenerationOptions:
        """Return what the backend is to make."""
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
            format=self.output_format,
            compression=self.output_compression,
        )


_STANDARD = ("auto", "standard", "low", "medium")


class GenerationRequest(ImageFields, RequestBody):
    """The body of OpenAI's operation createImage."""

    prompt: Prompt


class EditForm(ImageFields, FormBody):
    """The fields of createImageEdit beside the files."""

    prompt: Prompt


class VariationForm(ImageFields, FormBody):
    """The fields of createImageVariation beside the file."""
