"""Renders chat templates as Hugging Face's `apply_chat_template` does, because they are written for that function."""

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_SPECIAL_TOKENS = ("bos_token", "eos_token")

RESERVED_NAMES = ("messages", "tools", "add_generation_prompt", "raise_exception", "strftime_now")
"""Template variables that a request cannot set."""

_MAX_ITERATIONS = 10_000_000
"""How many iterations all loops of a template have together."""

_COUNT = " iterations"
"""Where a rendering counts its iterations: a name that a template cannot write."""

_MAX_TEXT = 100_000_000
"""How many characters or elements a template may make by multiplying a text or a list."""


class TemplateRejected(ValueError):
    """Rendering failed, usually because the template rejects the messages. The exception's message says why."""


class _Generation(Extension):
    """Jinja's tag `generation`, with which templates mark the assistant's messages for training: it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which nested loops and expressions such as `"a" * 10**12` fail instead of running for hours.

    It does not limit recursive macros and repeated concatenation.
    """

    intercepted_binops = frozenset({"*", "**"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            function, context = nodes.EnvironmentAttribute("limit_loop"), nodes.ContextReference()
            loop.iter = nodes.Call(function, [context, loop.iter], [], None, None)
        template.set_environment(self)
        return template

    @staticmethod
    def limit_loop(context: Context, values: Iterable[Any]) -> Iterator[Any]:
        """Yield values until all loops of one rendering together are too long."""
        iterations = context.vars.setdefault(_COUNT, [0])
        for value in values:
            iterations[0] += 1
            if iterations[0] > _MAX_ITERATIONS:
                raise SecurityError("the template loops too often")
            yield value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("chat templates cannot use '**'")
        if hasattr(left, "__len__") or hasattr(right, "__len__"):
            length, count = (len(left), right) if hasattr(left, "__len__") else (len(right), left)
            if isinstance(count, int) and length * count > _MAX_TEXT:
                raise SecurityError("the template makes a text or a list that is too long")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A model's chat template. It runs in a sandbox, because it comes with downloaded weights and is not trusted."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] = MappingProxyType({})):
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        environment.globals |= special_tokens
        self._template = environment.from_string(source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Return the prompt, which ends where the assistant's message begins.

        `kwargs` are additional template variables. Raises TemplateRejected if the template raises any exception.
        """
        variables = {**kwargs, "messages": messages, "tools": tools or None, "add_generation_prompt": True}
        try:
            return self._template.render(variables)
        except Exception as error:  # a template is a program: unexpected messages can make it raise anything
            raise TemplateRejected(f"The model's chat template rejects these messages: {error}") from error


def load_chat_template(folder: Path) -> ChatTemplate:
    """Return the chat template in `folder`: from chat_template.jinja if it exists, else from tokenizer_config.json.

    Raises KeyError if there is no template, or if there are several templates but none is named `default`.
    """
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    tokens = {name: _token(config.get(name)) for name in _SPECIAL_TOKENS}
    file = folder / "chat_template.jinja"
    if file.exists():
        return ChatTemplate(file.read_text(encoding="utf-8"), tokens)
    value = config["chat_template"]
    source = value if isinstance(value, str) else {entry["name"]: entry["template"] for entry in value}["default"]
    return ChatTemplate(str(source), tokens)


def _token(value: Any) -> str:
    """Return the text of a special token, or an empty string if there is no such token.

    Some configurations wrap the text in an object.
    """
    return str(value["content"] if isinstance(value, dict) else value or "")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML: models would read \u003c instead of <.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)
