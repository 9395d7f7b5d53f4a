"""Converts messages with images to the input of a vision model: text with image tags, and the images."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.common.errors import InvalidRequest
from backends.generation.engine.ipc import RGBImage
from backends.generation.prompt.chat_prompt import (
    NO_FILES,
    NO_TEMPLATE_INPUTS,
    Files,
    Prompt,
    TemplateInputs,
    find_files,
    reasoning_prefix_of,
)
from backends.generation.prompt.image_processor import ImageProcessor
from backends.generation.prompt.marked_prompt import MarkedPrompt

# The engine's tag for the image with a given index, and the prefix of all of the engine's tags for media.
_TAG = "<ov_genai_image_{}>"
_ANY_TAG = "<ov_genai_"

# Matches the keys in config.json whose values are the IDs of special tokens for images, videos and audio.
_TOKEN_KEYS = re.compile(r"(image|video|audio|vision)_(\w+_)?token_(id|index)")


class VisionPrompt(MarkedPrompt):
    """Renders conversations with the engine's tags in place of images.

    A tag in the client's text would insert an image twice, or make the engine reject the request. So the tags in the
    rendered text are first broken up with a space, and then the marks are replaced with the engine's tags.
    """

    def __init__(self, folder: Path, context_length: int, image_processor: ImageProcessor, max_pixels: int):
        super().__init__(folder, context_length)
        self._image_processor, self._max_pixels = image_processor, max_pixels
        self._reserved = re.compile("|".join(map(re.escape, self._special_tokens(folder))))

    def from_messages(
        self,
        messages: list[dict[str, Any]],
        files: Files = NO_FILES,
        template_inputs: TemplateInputs = NO_TEMPLATE_INPUTS,
    ) -> Prompt:
        """Return the prompt of a conversation.

        Raises InvalidRequest if an image is invalid, too large or not rendered by the template, if the template
        rejects the messages, or if the prompt is too long. Raises ValueError if the number of images is wrong.
        """
        positions, images = find_files(messages), files.contents.get("image", ())
        for i, j, kind in positions:
            if kind != "image":
                raise InvalidRequest("This model does not accept audio", f"messages[{i}].content[{j}]")
        if len(positions) != len(images):
            raise ValueError(f"{len(images)} images for {len(positions)} image parts")
        params = [f"messages[{i}].content[{j}].image_url.url" for i, j, _ in positions]
        rgb_images = self._decode_images(images, params)
        rendered, marks = self._render_with_marks(messages, params, template_inputs)
        return self._prompt(self._break_tags(rendered), marks, rgb_images)

    def _decode_images(self, images: Sequence[bytes], params: Sequence[str]) -> list[RGBImage]:
        """Decode the images. The pixel limit applies to all images of a request together."""
        rgb_images, max_pixels = list[RGBImage](), self._max_pixels
        for image, param in zip(images, params, strict=True):
            try:
                rgb_image, size = self._image_processor.read(image, max_pixels, param)
            except InvalidRequest as error:
                # The error's message gives the pixels that remain after the earlier images, not the whole limit.
                if rgb_images and error.code == "too_large":
                    message = f"The images together exceed the limit of {self._max_pixels:,} pixels"
                    raise InvalidRequest(message, param, "too_large") from None
                raise
            rgb_images.append(rgb_image)
            max_pixels -= size
        return rgb_images

    def from_text(self, text: str) -> Prompt:
        """Return a prompt of `text`, with the engine's tags broken up.

        Raises InvalidRequest if there are no tokens or too many.
        """
        safe_text = self._break_tags(text)
        prompt = super().from_text(safe_text)
        return replace(prompt, ids=b"", text=safe_text, prompt_text=text)

    def from_token_ids(self, ids: Sequence[int]) -> Prompt:
        """Raise InvalidRequest, because the engine accepts only text prompts for a vision model."""
        raise InvalidRequest("This model does not support token IDs; send 'prompt' as text", "prompt")

    def _prompt(self, rendered: str, marks: list[str], rgb_images: list[RGBImage]) -> Prompt:
        """Return the prompt, whose text is `rendered` with the marks replaced by the engine's tags.

        Raises InvalidRequest if the prompt is too long.
        """
        text = counted = rendered
        for index, mark in enumerate(marks):
            text = text.replace(mark, _TAG.format(index))
            counted = counted.replace(mark, self._image_processor.placeholder)
        tokens = len(self.vocabulary.encode(counted))
        tokens += sum(rgb_image.tokens - self._image_processor.placeholder_tokens for rgb_image in rgb_images)
        return Prompt(
            tokens,
            self.remaining_context_after(tokens),
            text=text,
            rgb_images=tuple(rgb_images),
            reasoning_prefix=reasoning_prefix_of(text),
        )

    def _break_tags(self, text: str) -> str:
        return self._reserved.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _special_tokens(self, folder: Path) -> list[str]:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        ids = [value for key, value in config.items() if _TOKEN_KEYS.fullmatch(key) and isinstance(value, int)]
        return [_ANY_TAG, *filter(None, (self.vocabulary.decode([id]) for id in ids))]
