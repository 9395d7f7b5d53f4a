"""From messages to token ids: the model's chat template and tokenizer, both beside the weights."""

import datetime
import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from protocol.errors import InvalidRequest
from tokenizers import Tokenizer


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which would put \u003c into prompts.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)


class ChatPrompt:
    """Renders and tokenizes conversations for one model.

    The environment follows Hugging Face transformers' `apply_chat_template`, which templates are written for;
    sandboxed, since a template comes with downloaded weights.
    """

    def __init__(self, folder: Path, context_length: int):
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self._template = environment.from_string((folder / "chat_template.jinja").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._context_length = context_length

    def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        """Return the prompt's token ids. Raises InvalidRequest if the template refuses or the context is too short."""
        try:
            text = self._template.render(messages=messages, add_generation_prompt=True)
        except TemplateError as error:
            raise InvalidRequest(f"The model's chat template refuses these messages: {error}", "messages") from error
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) >= self._context_length:
            raise InvalidRequest(
                f"This model's maximum context length is {self._context_length} tokens. However, your messages "
                f"resulted in {len(ids)} tokens. Please reduce the length of the messages.",
                "messages",
                "context_length_exceeded",
            )
        return ids

    def room_for_answer(self, prompt_ids: list[int]) -> int:
        """Return how many tokens fit into the context after the prompt."""
        return self._context_length - len(prompt_ids)
