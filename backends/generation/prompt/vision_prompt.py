"""From messages with pictures to what the engine of a model that sees is asked: text with tags, and the pictures."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.common.errors import InvalidRequest
from backends.generation.engine.ipc import RGBImage
from backends.generation.prompt.chat_prompt import (
    NO_TEMPLATE_INPUTS,
    ChatPrompt,
    Prompt,
    TemplateInputs,
    find_images,
    reasoning_prefix_of,
)
from backends.generation.prompt.image_processor import ImageProcessor

# The engine's tags, and those that it has for videos and audio.
_TAG = "<ov_genai_image_{}>"
_ANY_TAG = "<ov_genai_"

# Config.json's names of the tokens around and in place of pictures.
_TOKEN_KEYS = re.compile(r"(image|video|audio|vision)_(\w+_)?token_(id|index)")


class VisionPrompt(ChatPrompt):
    """Renders a conversation with the engine's tags in place of its pictures.

    What is written like a tag by anybody else is spoilt by a space: it would bring in a picture twice, or be refused by
    the engine. To tell them apart, the template is given marks that nobody can guess.
    """

    def __init__(self, folder: Path, context_length: int, image_processor: ImageProcessor, max_pixels: int):
        super().__init__(folder, context_length)
        self._image_processor, self._max_pixels = image_processor, max_pixels
        self._secret = secrets.token_hex(8)
        self._forbidden = re.compile("|".join(map(re.escape, self._special_tokens(folder))))
        self._takes_parts = self._shows([{"type": "text", "text": self._secret}])

    def read(
        self,
        messages: list[dict[str, Any]],
        images: Sequence[bytes] = (),
        template_inputs: TemplateInputs = NO_TEMPLATE_INPUTS,
    ) -> Prompt:
        """Return the prompt. Raises InvalidRequest for a picture that cannot be read, and as `encode` does."""
        places = find_images(messages)
        if len(places) != len(images):
            raise ValueError(f"{len(places)} parts are images, and there are {len(images)} of them")
        params = [f"messages[{i}].content[{j}].image_url.url" for i, j in places]
        rgb_images = self._decode_images(images, params)
        rendered = self._spoil(self._render(self._marked(messages), template_inputs))
        marks = [self._mark(number) for number in range(len(rgb_images))]
        for mark, param in zip(marks, params, strict=True):
            if rendered.count(mark) != 1:
                raise InvalidRequest("The model's chat template takes no image here", param)
        return self._prompt(rendered, marks, rgb_images)

    def _decode_images(self, images: Sequence[bytes], params: Sequence[str]) -> list[RGBImage]:
        """Decode the images, which together have the limit of one."""
        rgb_images, max_pixels = list[RGBImage](), self._max_pixels
        for image, param in zip(images, params, strict=True):
            rgb_image, size = self._image_processor.read(image, max_pixels, param)
            rgb_images.append(rgb_image)
            max_pixels -= size
        return rgb_images

    def read_text(self, text: str) -> Prompt:
        """Return a prompt that is text to go on with. Raises InvalidRequest as any ChatPrompt does."""
        spoilt = self._spoil(text)
        prompt = super().read_text(spoilt)
        return replace(prompt, ids=b"", text=spoilt, prompt_text=text)

    def read_ids(self, ids: Sequence[int]) -> Prompt:
        """Refuse: the engine of a model that sees takes text alone."""
        raise InvalidRequest("This model takes prompts as text, not as token ids", "prompt")

    def _prompt(self, rendered: str, marks: list[str], rgb_images: list[RGBImage]) -> Prompt:
        """Put the tags in, and count."""
        text = counted = rendered
        for number, mark in enumerate(marks):
            text = text.replace(mark, _TAG.format(number))
            counted = counted.replace(mark, self._image_processor.placeholder)
        tokens = len(self.tokenizer.encode(counted, add_special_tokens=False).ids)
        tokens += sum(rgb_image.tokens - self._image_processor.own_tokens for rgb_image in rgb_images)
        return Prompt(
            tokens,
            self.remaining_context_after(tokens),
            text=text,
            rgb_images=tuple(rgb_images),
            reasoning_prefix=reasoning_prefix_of(text),
        )

    def _marked(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages with marks in place of pictures, their contents in the form that the template takes."""
        number, marked = 0, []
        for message in messages:
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
            texts = []
            for part in parts:
                texts.append(self._mark(number) if part["type"] == "image" else part["text"])
                number += part["type"] == "image"
            as_parts = [{"type": "text", "text": text} for text in texts]
            marked.append(message | {"content": as_parts if self._takes_parts else "".join(texts)})
        return marked

    def _mark(self, number: int) -> str:
        return f"<{self._secret}-{number}>"

    def _spoil(self, text: str) -> str:
        return self._forbidden.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _special_tokens(self, folder: Path) -> list[str]:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        ids = [value for key, value in config.items() if _TOKEN_KEYS.fullmatch(key) and isinstance(value, int)]
        return [_ANY_TAG, *filter(None, map(self.tokenizer.id_to_token, ids))]

    def _shows(self, content: Any) -> bool:
        """Tell whether the template writes a content of this form: some take texts, some lists of parts."""
        try:
            rendered = self._render([{"role": "user", "content": content}])
        except InvalidRequest:
            return False
        return self._secret in rendered and "'type'" not in rendered
