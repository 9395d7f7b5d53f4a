"""Renders conversations with marks in place of images and audio."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.common.errors import InvalidRequest
from backends.generation.prompt.chat_prompt import ChatPrompt, TemplateInputs


class MarkedPrompt(ChatPrompt):
    """Renders conversations with an unguessable mark in place of each file: a client's text cannot contain one."""

    def __init__(self, folder: Path, context_length: int):
        super().__init__(folder, context_length)
        self._secret = secrets.token_hex(8)
        self._accepts_parts = self._renders([{"type": "text", "text": self._secret}])

    def _render_with_marks(
        self, messages: list[dict[str, Any]], params: Sequence[str], template_inputs: TemplateInputs
    ) -> tuple[str, list[str]]:
        """Return the rendered conversation, and the mark of each of its files in order.

        `params` are the request fields of the files. Raises InvalidRequest if the template omits or repeats a mark, or
        if it rejects the messages.
        """
        rendered = self._render(self._with_marks(messages), template_inputs)
        marks = [self._mark(index) for index in range(len(params))]
        for mark, param in zip(marks, params, strict=True):
            if rendered.count(mark) != 1:
                raise InvalidRequest("The model's chat template does not support a file here", param)
        return rendered, marks

    def _with_marks(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages with marks in place of files.

        The content of each message is a list of parts if the template accepts lists, otherwise a string.
        """
        index, marked = 0, []
        for message in messages:
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
            strings = []
            for part in parts:
                strings.append(part["text"] if part["type"] == "text" else self._mark(index))
                index += part["type"] != "text"
            as_parts = [{"type": "text", "text": text} for text in strings]
            marked.append(message | {"content": as_parts if self._accepts_parts else "".join(strings)})
        return marked

    def _mark(self, index: int) -> str:
        return f"<{self._secret}-{index}>"

    def _renders(self, content: Any) -> bool:
        """Return whether the template renders `content` correctly. Some templates expect a string, others a list."""
        try:
            rendered = self._render([{"role": "user", "content": content}])
        except InvalidRequest:
            return False
        return self._secret in rendered and "'type'" not in rendered
