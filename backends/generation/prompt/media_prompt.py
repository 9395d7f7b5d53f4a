"""Converts messages with images and audio to the input of a model on llama.cpp: token IDs and embeddings."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.common.audio.decoding import read_blocks
from backends.common.errors import EngineFailure, InvalidRequest
from backends.common.images.decoding import on_white, read_image
from backends.common.llamacpp.media.assembly import Assembly
from backends.common.llamacpp.media.encoder import MediaEncoder
from backends.common.llamacpp.media.messages import Audio, Image
from backends.generation.prompt.chat_prompt import (
    NO_FILES,
    NO_TEMPLATE_INPUTS,
    Files,
    Prompt,
    TemplateInputs,
    find_files,
    reasoning_prefix_of,
)
from backends.generation.prompt.marked_prompt import MarkedPrompt

_MAX_AUDIO_SECONDS = 600.0

# The library divides sides by each other; a picture this narrow would have a side of no pixels.
_MAX_ASPECT_RATIO = 200


# The field of a file in a content part, where it is known.
_FIELDS = {"image": ".image_url.url"}


class MediaPrompt(MarkedPrompt):
    """Renders conversations, and inserts the tokens and embeddings of their images and audio files."""

    encodes_files = True

    def __init__(self, folder: Path, context_length: int, encoder: MediaEncoder, max_pixels: int):
        super().__init__(folder, context_length)
        self._encoder, self._max_pixels = encoder, max_pixels

    def from_messages(
        self,
        messages: list[dict[str, Any]],
        files: Files = NO_FILES,
        template_inputs: TemplateInputs = NO_TEMPLATE_INPUTS,
    ) -> Prompt:
        """Return the prompt of a conversation.

        Raises InvalidRequest if a file is invalid, not supported or too large, if the template rejects the messages,
        or if the prompt is too long, and ValueError if the number of files is wrong. Raises EngineFailure or EngineDown
        if a file cannot be encoded.
        """
        positions = find_files(messages)
        if not positions:
            return super().from_messages(messages, NO_FILES, template_inputs)
        params = [f"messages[{i}].content[{j}]{_FIELDS.get(kind, '')}" for i, j, kind in positions]
        rendered, marks = self._render_with_marks(messages, params, template_inputs)
        texts = []
        for mark in marks:
            before, _, rendered = rendered.partition(mark)
            texts.append(self._encode(before) if before else [])
        rest = self._encode(rendered) if rendered else []
        if not rest:
            raise InvalidRequest("The model's chat template has nothing after the last file", params[-1])
        num_text = sum(map(len, texts)) + len(rest)
        self.remaining_context_after(num_text)  # raises before anything is encoded
        assembly, pixels = Assembly(), self._max_pixels
        contents = _in_order(files, [kind for _, _, kind in positions])
        for text, content, param, (_, _, kind) in zip(texts, contents, params, positions, strict=True):
            if files.is_cancelled():
                raise EngineFailure("The request was cancelled")
            assembly.add_tokens(text)
            media = self._read_image(content, pixels, param) if kind == "image" else self._read_audio(content, param)
            pixels -= media.width * media.height if isinstance(media, Image) else 0
            num_text -= len(text)
            assembly.add_file(self._encoder.encode(media, param))
            self.remaining_context_after(len(assembly.ids) + num_text)
        assembly.add_tokens(rest)
        return Prompt(
            len(assembly.ids),
            self.remaining_context_after(len(assembly.ids)),
            array("q", assembly.ids).tobytes(),
            embeddings=tuple(assembly.embeddings),
            reasoning_prefix=reasoning_prefix_of(rendered),
        )

    def close(self) -> None:
        """End the process that encodes files."""
        self._encoder.close()

    def _read_image(self, content: bytes, max_pixels: int, param: str) -> Image:
        if not self._encoder.ready.accepts_images:
            raise InvalidRequest("This model does not accept images", param, "unsupported_content")
        image = on_white(read_image(content, max_pixels, param))
        if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
            raise InvalidRequest("The image is too narrow for this model", param, "invalid_image")
        return Image(image.width, image.height, image.tobytes())

    def _read_audio(self, content: bytes, param: str) -> Audio:
        rate = self._encoder.ready.sample_rate
        if not rate:
            raise InvalidRequest("This model does not accept audio", param, "unsupported_content")
        try:
            blocks = list(read_blocks(content, _MAX_AUDIO_SECONDS, _MAX_AUDIO_SECONDS, rate))
        except InvalidRequest as error:
            raise InvalidRequest(str(error), param, error.code) from error
        return Audio(np.concatenate(blocks).astype(np.float32).tobytes())


def _in_order(files: Files, kinds: Sequence[str]) -> list[bytes]:
    """Return the files for parts of these types. Raises ValueError if there are too few or too many."""
    remaining = {kind: list(contents)[::-1] for kind, contents in files.contents.items()}
    if any(kinds.count(kind) != len(contents) for kind, contents in remaining.items()) or set(kinds) - set(remaining):
        raise ValueError("the number of files does not match the parts")
    return [remaining[kind].pop() for kind in kinds]
