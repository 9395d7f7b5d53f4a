"""Converts messages and text to token IDs, with the chat template and the vocabulary in the model's folder."""

import contextlib
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.common.errors import InvalidRequest
from backends.common.llamacpp.media.assembly import Embeddings
from backends.generation.engine.ipc import RGBImage
from backends.generation.prompt.schema_prompt import INSTRUCTIONS, with_schema
from backends.generation.prompt.tool_prompt import ToolPrompt
from backends.generation.vocabulary import open_vocabulary
from contract.chat_template import TemplateRejected, load_chat_template
from contract.model_text import REASONING_OPEN


@dataclass(frozen=True)
class Prompt:
    """The engine's input: int64 token IDs in native byte order or, for a vision model of OpenVINO, text and images."""

    num_tokens: int
    remaining_context: int
    """How many tokens fit into the context after the prompt."""
    ids: bytes = b""
    embeddings: tuple[Embeddings, ...] = ()
    """What stands in place of negative token IDs."""
    text: str = ""
    rgb_images: tuple[RGBImage, ...] = ()
    reasoning_prefix: str = ""
    """Text to put before the model's output: `<think>` and a line break if the prompt ends with `<think>`."""
    prompt_text: str = ""
    """The text of a prompt that was given as text or token IDs; empty for a conversation."""


@dataclass(frozen=True)
class TemplateInputs:
    """The chat template's variables other than the messages."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    """The JSON schema of the output, to be described in the prompt."""


NO_TEMPLATE_INPUTS = TemplateInputs()


@dataclass(frozen=True)
class Files:
    """The files of a conversation's parts by the type of the parts, in order."""

    contents: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    is_cancelled: Callable[[], bool] = lambda: False
    """Whether the client has disconnected, so that the files need not be encoded."""


NO_FILES = Files()


def find_files(messages: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """Return the index of the message, the index of the content part and the type for each image or audio file."""
    contents = [(i, message.get("content")) for i, message in enumerate(messages)]
    parts = [(i, j, part) for i, content in contents if isinstance(content, list) for j, part in enumerate(content)]
    return [(i, j, part["type"]) for i, j, part in parts if part["type"] != "text"]


class ChatPrompt:
    """Renders conversations with one model's chat template, and tokenizes them."""

    encodes_files = False
    """Whether `from_messages` encodes images and audio, which takes long."""

    def __init__(self, folder: Path, context_length: int):
        self._template = load_chat_template(folder)
        self.vocabulary = open_vocabulary(folder)
        self._context_length = context_length
        self._tools = ToolPrompt(lambda messages, tools: self._render_as_is(messages, tools, {}))

    def from_messages(
        self,
        messages: list[dict[str, Any]],
        files: Files = NO_FILES,
        template_inputs: TemplateInputs = NO_TEMPLATE_INPUTS,
    ) -> Prompt:
        """Return the prompt of a conversation.

        Raises InvalidRequest if the messages contain an image or audio, if the template rejects the messages, or if the
        prompt is too long.
        """
        for i, j, kind in find_files(messages):
            name = "images" if kind == "image" else kind
            raise InvalidRequest(f"This model does not accept {name}", f"messages[{i}].content[{j}]")
        text = self._render(messages, template_inputs)
        ids = self._encode(text)
        if not ids:
            raise InvalidRequest("The chat template makes an empty prompt of these messages", "messages")
        return Prompt(
            len(ids),
            self.remaining_context_after(len(ids)),
            array("q", ids).tobytes(),
            reasoning_prefix=reasoning_prefix_of(text),
        )

    def from_text(self, text: str) -> Prompt:
        """Return a prompt of `text` without a chat template, but with the special tokens that the tokenizer adds.

        Raises InvalidRequest if there are no tokens or too many.
        """
        return self._continue(self.vocabulary.encode(text, add_special=True), text)

    def from_token_ids(self, ids: Sequence[int]) -> Prompt:
        """Return a prompt of these token IDs.

        Raises InvalidRequest if there are no token IDs or too many, or if a token ID is not in the vocabulary. In the
        last case, the error names the index of the token ID.
        """
        size = self.vocabulary.size
        for index, token in enumerate(ids):
            if not 0 <= token < size:
                raise InvalidRequest(f"Token IDs of this model range from 0 to {size - 1}", f"prompt[{index}]")
        prompt = self._continue(ids, "")
        return replace(prompt, prompt_text=self.vocabulary.decode(ids))

    def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        """Return the token IDs of the rendered messages. Raises InvalidRequest if the template rejects the messages."""
        return self._encode(self._render(messages))

    def remaining_context_after(self, num_tokens: int, param: str = "messages") -> int:
        """Return how many tokens fit into the context after `num_tokens`. Raises InvalidRequest if none fit."""
        if num_tokens >= self._context_length:
            raise InvalidRequest(
                f"This model's maximum context length is {self._context_length} tokens. However, your {param} "
                f"resulted in {num_tokens} tokens. Please reduce the length of the {param}.",
                param,
                "context_length_exceeded",
            )
        return self._context_length - num_tokens

    def close(self) -> None:
        """Release what the prompts need apart from memory: nothing, unless files are encoded."""

    def _continue(self, ids: Sequence[int], prompt_text: str) -> Prompt:
        if not ids:
            raise InvalidRequest("'prompt' must not be empty", "prompt")  # an empty prompt would crash the engine
        return Prompt(
            len(ids),
            self.remaining_context_after(len(ids), "prompt"),
            array("q", ids).tobytes(),
            prompt_text=prompt_text,
        )

    def _encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(text)

    def _render(self, messages: list[dict[str, Any]], template_inputs: TemplateInputs = NO_TEMPLATE_INPUTS) -> str:
        if template_inputs.schema:
            return self._render_with_schema(messages, template_inputs, template_inputs.schema)
        return self._render_as_is(*self._tools.prepare(messages, template_inputs.tools), template_inputs.kwargs)

    def _render_with_schema(
        self, messages: list[dict[str, Any]], template_inputs: TemplateInputs, schema: Mapping[str, Any]
    ) -> str:
        """Return the prompt with a description of the schema, wherever the template supports it, or without it."""
        plain = replace(template_inputs, schema=None)
        if len(json.dumps(schema)) > self._context_length:  # in characters, about a third of the context
            return self._render(messages, plain)
        for role in ("system", "user"):
            with contextlib.suppress(InvalidRequest):
                text = self._render(with_schema(messages, schema, role), plain)
                if INSTRUCTIONS in text:
                    return text
        return self._render(messages, plain)

    def _render_as_is(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, kwargs: Mapping[str, Any]
    ) -> str:
        try:
            return self._template.render(messages, tools, kwargs)
        except TemplateRejected as error:
            raise InvalidRequest(str(error), "messages") from error


def reasoning_prefix_of(prompt: str) -> str:
    """Return `<think>` and a line break if the rendered prompt ends with `<think>`, otherwise an empty string."""
    return f"{REASONING_OPEN}\n" if prompt.rstrip().endswith(REASONING_OPEN) else ""
