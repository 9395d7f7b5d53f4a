"""Tools and reasoning: the request fields, the inputs of the chat template and the sampler, and the output parsers."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from contract.chat_template import RESERVED_NAMES
from contract.constraints import AnyOfConstraint, Constraint, GrammarConstraint, constraint_to_json
from contract.model_text import DEFAULT_TOOL_FORMAT, REASONING_TAGS
from contract.options import SamplingParameters
from frontend.errors import EngineFailure, InvalidRequest
from frontend.generation.messages import MAX_CALLS
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond
from frontend.parsing.pipeline import Parser, ParserPipeline
from frontend.parsing.reasoning import ReasoningParser
from frontend.parsing.tools import TOOL_FORMATS, ToolFormat
from frontend.parsing.tools.scanner import ToolParser
from frontend.triton.model import Model

_MAX_KWARGS, _MAX_KWARGS_BYTES = 32, 16_384
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

# Maximum number of forced tool calls in a choice. Without this limit, a small model that is forced to call tools keeps
# calling them until it reaches its token limit.
_MAX_FORCED_CALLS = 8

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Function(RequestBody):
    """A function that the model may call."""

    name: Name = Field(description="Name of the function: letters, digits, `_` and `-`, at most 64 characters.")
    description: str | None = Field(None, description="Tells the model what the function does.")
    parameters: dict[str, Any] | None = Field(
        None, description="JSON schema of the arguments, of type `object`. If omitted, the function has no arguments."
    )
    strict: bool | None = Field(
        None, description="Ignored: `tool_choice` decides whether calls must match `parameters`."
    )

    @field_validator("parameters", mode="after")
    @classmethod
    def _check_parameters(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type", "object") != "object":
            raise ValueError("must be a schema of type 'object'")
        _check_depth(value)
        return value


class Tool(RequestBody):
    """A tool. Only functions are supported."""

    type: Literal["function"] = Field(description="Always `function`.")
    function: Function = Field(description="The function.")


class NamedFunction(RequestBody):
    """The name of a function."""

    name: str = Field(description="Name of a function in `tools`.")


class NamedTool(RequestBody):
    """The one tool that the model must call."""

    type: Literal["function"] = Field(description="Always `function`.")
    function: NamedFunction = Field(description="The function to call.")


Choice = TypeVar("Choice")
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")] | Annotated[Choice, Tag("<tool>")],
    Discriminator(lambda value: "<tool>" if isinstance(value, dict | BaseModel) else "<mode>"),
]
"""The type of the field `tool_choice`. `Choice` is the class of an object that names a tool.

This class differs between chat completions and responses, because their APIs define different objects.
"""


class ToolFields(RequestBody):
    """The fields for tools, reasoning and the chat template."""

    tools: list[Tool] | None = Field(None, max_length=128, description="Functions that the model may call.")
    tool_choice: ToolChoice[NamedTool] = Field(
        "auto",
        description="`none`: the model calls no tools. `auto`: the model decides whether to call tools. `required`: "
        "the model makes one to eight tool calls. An object: the model calls the named function once. With "
        "`required` or an object, arguments match the schema in `parameters`, except for unsupported keywords.",
    )
    parallel_tool_calls: bool = Field(True, description="If false, a response has at most one tool call.")
    reasoning_effort: Effort | None = Field(
        None,
        description="Passed to the chat template. `none` also sets `enable_thinking` to false, unless the request "
        "sets `enable_thinking` itself.",
    )
    enable_thinking: bool | None = Field(
        None, description="Whether a reasoning model reasons before it answers. Passed to the chat template."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None,
        max_length=_MAX_KWARGS,
        description="Further variables for the chat template, at most 16 KB. They override `reasoning_effort` and "
        "`enable_thinking`.",
    )

    @field_validator("chat_template_kwargs", mode="after")
    @classmethod
    def _check_template_kwargs(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in value or ():
            if not _IDENTIFIER.fullmatch(name) or name in RESERVED_NAMES:
                raise ValueError(f"'{name[:64]}' is not an allowed variable name")
        _check_depth(value)
        if len(orjson.dumps(value)) > _MAX_KWARGS_BYTES:
            raise ValueError(f"exceeds the limit of {_MAX_KWARGS_BYTES} bytes")
        return value

    @model_validator(mode="after")
    def _check_names(self) -> "ToolFields":
        names = [tool.function.name for tool in self.tools or ()]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise InvalidRequest(f"Duplicate tool name '{name}'", param=f"tools[{index}].function.name")
        if not names and self.tool_choice not in ("none", "auto"):
            raise InvalidRequest("'tool_choice' requires 'tools'", param="tool_choice")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise InvalidRequest(
                f"'tool_choice' names an unknown tool: '{self.tool_choice.function.name}'",
                param="tool_choice.function.name",
            )
        return self

    @property
    def callable_tools(self) -> list[Tool]:
        """The tools that the model may call; empty if `tool_choice` is `none`."""
        return [] if self.tool_choice == "none" else self.tools or []

    def template_kwargs(self) -> dict[str, Any]:
        """Return the request's variables for the chat template, other than the messages and the tools."""
        kwargs: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            kwargs["reasoning_effort"] = self.reasoning_effort
        if self.reasoning_effort == "none":
            kwargs["enable_thinking"] = False  # for templates without effort levels
        if self.enable_thinking is not None:
            kwargs["enable_thinking"] = self.enable_thinking
        return kwargs | (self.chat_template_kwargs or {})


def describe_tools(body: ToolFields) -> list[dict[str, Any]]:
    """Return the callable tools in the format that chat templates expect.

    Every function has the key `parameters`, because some templates require it.
    """
    return [{"type": tool.type, "function": _describe(tool.function)} for tool in body.callable_tools]


def tool_parameters(model: Model, body: ToolFields, constraint: Constraint | None) -> SamplingParameters:
    """Return the sampling parameters for tools and reasoning, with the constraint on the output.

    `constraint` is the constraint that the structured output fields set. If tool calls are forced, it does not apply:
    the output is only tool calls. If `tool_choice` is `auto` and `constraint` is a grammar, the output is text that
    matches the grammar. If `tool_choice` is `auto` and `constraint` is of another kind, the output is either tool calls
    or text that satisfies `constraint`.

    Raises EngineFailure if the model's configuration names an unknown tool format.
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
    is_free = body.tool_choice == "auto"
    if is_free and (constraint is None or isinstance(constraint, GrammarConstraint)):
        return constraint
    chosen = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else None
    functions = [
        tool.function.model_dump() | {"param": f"tools[{index}].function.parameters"}
        for index, tool in enumerate(body.callable_tools)
        if chosen in (None, tool.function.name)
    ]
    max_calls = _MAX_FORCED_CALLS if body.parallel_tool_calls and not chosen else 1
    calls = _tool_format(model).constrain(functions, max_calls)
    return AnyOfConstraint([calls, constraint], constraint.param) if is_free and constraint else calls


def pipeline_factory(model: Model, body: ToolFields) -> Callable[[], ParserPipeline]:
    """Return a function that creates a parser pipeline. Each choice needs its own pipeline.

    Raises InvalidRequest if the request has callable tools and the model's task is not chat, or EngineFailure if the
    model's configuration names an unknown tool format.
    """
    names = {tool.function.name for tool in body.callable_tools}
    if names and model.task != "chat":
        raise InvalidRequest(f"The model '{model.id}' does not support tools", param="tools")
    max_calls = MAX_CALLS if body.parallel_tool_calls else 1
    reasons, tool_format = _reasons(model), _tool_format(model) if names else None
    forced = body.tool_choice != "auto"

    def new_pipeline() -> ParserPipeline:
        parsers: list[Parser] = [ReasoningParser()] if reasons else []
        if tool_format:
            parsers.append(ToolParser(tool_format, names, max_calls, forced))
        return ParserPipeline(parsers)

    return new_pipeline


def _reasons(model: Model) -> bool:
    return model.parameters.get("reasoning") == "think"


def _tool_format(model: Model) -> ToolFormat:
    name = model.parameters.get("tool_format", DEFAULT_TOOL_FORMAT)
    if name not in TOOL_FORMATS:
        raise EngineFailure(
            f"The configuration of '{model.name}' has an unknown tool_format '{name}'; supported: "
            + ", ".join(TOOL_FORMATS)
        )
    return TOOL_FORMATS[name]


def _describe(function: Function) -> dict[str, Any]:
    description = {} if function.description is None else {"description": function.description}
    parameters = function.parameters or {"type": "object", "properties": {}}
    return {"name": function.name} | description | {"parameters": parameters}


def _check_depth(value: Any) -> None:
    """Raise ValueError if `value` is nested deeper than MAX_LEVELS."""
    if levels_beyond(value, MAX_LEVELS):
        raise ValueError(f"nested deeper than {MAX_LEVELS} levels")
