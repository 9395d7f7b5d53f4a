"""Tools in a request: what it may say of them, what the model is given, and what parses its output."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from contract.chat_template import RESERVED_NAMES
from contract.constraints import Constraint, EitherConstraint, GrammarConstraint, constraint_to_json
from contract.model_text import DEFAULT_TOOL_FORMAT, REASONING_TAGS
from contract.options import SamplingParameters
from frontend.errors import EngineFailure, InvalidRequest
from frontend.generation.messages import MAX_CALLS
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond
from frontend.parsing.pipeline import Parser, ParserPipeline
from frontend.parsing.reasoning import ReasoningParser
from frontend.parsing.tools import TOOL_FORMATS, ToolFormat
from frontend.parsing.tools.scanner import ToolParser
from frontend.triton.registry import Model

_MAX_KWARGS, _MAX_KWARGS_BYTES = 32, 16_384
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

# A small model that may do nothing else goes on calling until its tokens are used up.
_MAX_FORCED = 8

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Function(RequestBody):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters", mode="after")
    @classmethod
    def _is_of_an_object(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type", "object") != "object":
            raise ValueError("a function's parameters are an object")
        _check_depth(value)
        return value


class Tool(RequestBody):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function


class NamedFunction(RequestBody):
    """The name of a function."""

    name: str


class NamedTool(RequestBody):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


Choice = TypeVar("Choice")
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")] | Annotated[Choice, Tag("<tool>")],
    Discriminator(lambda value: "<tool>" if isinstance(value, dict | BaseModel) else "<mode>"),
]
"""Whether to call a tool, or which one, in an API's own way to name it."""


class ToolFields(RequestBody):
    """The fields about tools, and about how the model's template is filled in."""

    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: ToolChoice[NamedTool] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, max_length=_MAX_KWARGS)

    @field_validator("chat_template_kwargs", mode="after")
    @classmethod
    def _fits_a_template(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in value or ():
            if not _IDENTIFIER.fullmatch(name) or name in RESERVED_NAMES:
                raise ValueError(f"'{name[:64]}' cannot be set")
        _check_depth(value)
        if len(orjson.dumps(value)) > _MAX_KWARGS_BYTES:
            raise ValueError(f"over {_MAX_KWARGS_BYTES} bytes")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> "ToolFields":
        names = [tool.function.name for tool in self.tools or ()]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise InvalidRequest(f"There are two tools called '{name}'", param=f"tools[{number}].function.name")
        if not names and self.tool_choice not in (None, "none", "auto"):
            raise InvalidRequest("'tool_choice' needs 'tools'", param="tool_choice")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise InvalidRequest(
                f"There is no tool called '{self.tool_choice.function.name}'", param="tool_choice.function.name"
            )
        return self

    @property
    def callable_tools(self) -> list[Tool]:
        """The tools that the model may call."""
        return [] if self.tool_choice == "none" else self.tools or []

    def template_kwargs(self) -> dict[str, Any]:
        """Return what the chat template is given besides the conversation."""
        kwargs: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            kwargs["reasoning_effort"] = self.reasoning_effort
        if self.reasoning_effort == "none":
            kwargs["enable_thinking"] = False  # what templates that know of no effort call it
        if self.enable_thinking is not None:
            kwargs["enable_thinking"] = self.enable_thinking
        return kwargs | (self.chat_template_kwargs or {})


def describe_tools(body: ToolFields) -> list[dict[str, Any]]:
    """Return the tools as chat templates take them: some look into the parameters of each."""
    return [{"type": tool.type, "function": _describe(tool.function)} for tool in body.callable_tools]


def tool_parameters(model: Model, body: ToolFields, constraint: Constraint | None) -> SamplingParameters:
    """Return the sampling parameters about tools and reasoning, and the constraint that the output must match.

    `constraint` is what other fields ask for: a model that may call tools either calls, or matches it. Raises
    EngineFailure for a model whose configuration names an unknown format.
    """
    tags: tuple[str, ...] = REASONING_TAGS if _reasons(model) else ()
    if body.callable_tools:
        tags += _tool_format(model).tags
        constraint = _with_calls(model, body, constraint)
    parameters: SamplingParameters = {}
    if kwargs := body.template_kwargs():
        parameters["chat_template_kwargs"] = kwargs
    if tags:
        parameters["visible_tokens"] = list(tags)
    if constraint:
        parameters["constraint"] = constraint_to_json(constraint)
    return parameters


def _with_calls(model: Model, body: ToolFields, constraint: Constraint | None) -> Constraint | None:
    is_free = body.tool_choice in (None, "auto")
    if is_free and (constraint is None or isinstance(constraint, GrammarConstraint)):
        return constraint
    chosen = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else None
    functions = [tool.function.model_dump() for tool in body.callable_tools if chosen in (None, tool.function.name)]
    max_calls = 1 if chosen or body.parallel_tool_calls is False else _MAX_FORCED
    calls = _tool_format(model).constrain(functions, max_calls)
    return EitherConstraint([calls, constraint], "tools") if is_free and constraint else calls


def pipeline_factory(model: Model, body: ToolFields) -> Callable[[], ParserPipeline]:
    """Return what makes the parsers of one output. Raises InvalidRequest for tools that the model cannot call."""
    names = {tool.function.name for tool in body.callable_tools}
    if names and model.task != "chat":
        raise InvalidRequest(f"The model '{model.id}' calls no tools", param="tools")
    max_calls = 1 if body.parallel_tool_calls is False else MAX_CALLS
    reasons, tool_format = _reasons(model), _tool_format(model) if names else None

    def new_pipeline() -> ParserPipeline:
        parsers: list[Parser] = [ReasoningParser()] if reasons else []
        return ParserPipeline([*parsers, ToolParser(tool_format, names, max_calls)] if tool_format else parsers)

    return new_pipeline


def _reasons(model: Model) -> bool:
    return model.parameters.get("reasoning") == "think"


def _tool_format(model: Model) -> ToolFormat:
    name = model.parameters.get("tool_format", DEFAULT_TOOL_FORMAT)
    if name not in TOOL_FORMATS:
        raise EngineFailure(f"The configuration of '{model.name}' has the unknown tool_format '{name}'")
    return TOOL_FORMATS[name]


def _describe(function: Function) -> dict[str, Any]:
    description = {} if function.description is None else {"description": function.description}
    parameters = function.parameters or {"type": "object", "properties": {}}
    return {"name": function.name} | description | {"parameters": parameters}


def _check_depth(value: Any) -> None:
    """Raise ValueError if it is nested too deep for what is to be done with it."""
    if levels_beyond(value, MAX_LEVELS):
        raise ValueError(f"nested deeper than {MAX_LEVELS} levels")
