"""From a conversation to one text, for engines that take text alone: the model's chat template and tokenizer.

Small, beside what backends/generation/prompt.py does for the engine that has both at its weights: the frontend and the
backends share no code.
"""

import datetime
import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gevent
from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from frontend.errors import EngineFailure, InvalidRequest

log = logging.getLogger(__name__)


class ChatTemplate:
    """Of the model whose `tokenizer.json`, and `chat_template.jinja` or `tokenizer_config.json`, are in `folder`.

    Rendered as Hugging Face's `apply_chat_template` does; sandboxed, since templates come with downloaded weights.
    """

    def __init__(self, folder: Path):
        config = _read_config(folder)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        environment.globals |= {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
        self._template = environment.from_string(_read_template(folder, config))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._begin = "".join(self._tokenizer.encode("").tokens[:1])

    def render(
        self, messages: list[dict[str, Any]], tools: Sequence[Any] = (), more: Mapping[str, Any] = MappingProxyType({})
    ) -> str:
        """Return the text, without the token that the engine's tokenizer begins with. Raises InvalidRequest.

        `more`: what the request has the template told besides.
        """
        told = {**more, "messages": messages, "tools": list(tools) or None, "add_generation_prompt": True}
        try:
            rendered = self._template.render(told)
        except Exception as error:  # whatever a template does with what it did not expect
            message = f"The model's chat template refuses these messages: {error}"
            raise InvalidRequest(message, param="messages") from error
        return rendered.removeprefix(self._begin)

    def count(self, text: str) -> int:
        """Return how many tokens the engine will read. Others go on meanwhile: a long text takes a while."""
        count: int = gevent.get_hub().threadpool.apply(lambda: len(self._tokenizer.encode(text).ids))
        return count


@functools.lru_cache(maxsize=16)
def open_template(folder: Path) -> ChatTemplate:
    """Return the template of a folder, read once. Raises EngineFailure if it cannot be."""
    try:
        return ChatTemplate(folder)
    except Exception as error:  # tokenizers raises nothing more exact
        log.exception("the chat template and the tokenizer in %s cannot be read", folder)
        raise EngineFailure("The model's tokenizer cannot be read; the log of the server tells more") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return config


def _read_template(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = config["chat_template"]
    return str(found if isinstance(found, str) else next(t["template"] for t in found if t["name"] == "default"))


def _token(value: Any) -> str:
    """Return a special token, which some configurations describe further."""
    return str(value["content"] if isinstance(value, dict) else value or "")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which would put \u003c into prompts.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)
