"""Tools in a chat: what a request says of them, what the model is told, and how its answer is read."""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NoReturn

import orjson
from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from frontend.errors import EngineFailure, InvalidRequest
from frontend.generation.messages import Message
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond
from frontend.parsing.pipeline import Parser, ParserPipeline
from frontend.parsing.reasoning import TAGS, ReasoningParser
from frontend.parsing.tools import DEFAULT, TOOL_FORMATS, ToolFormat, ToolParser
from frontend.triton.registry import Model

_MAX_KWARGS, _MAX_KWARGS_BYTES = 32, 16_384
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

MAX_CALLS = 128
"""In one turn of the model."""

# A small model that may do nothing else goes on calling until its tokens are used up.
_MAX_FORCED = 8

# What a template gets of the conversation itself.
_RESERVED = ("messages", "tools", "add_generation_prompt", "raise_exception", "strftime_now")

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


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")] | Annotated[NamedTool, Tag("<tool>")],
    Discriminator(lambda value: "<tool>" if isinstance(value, dict | NamedTool) else "<mode>"),
]


class CalledFunction(RequestBody):
    """A function that the model has called; `arguments` are JSON."""

    name: str
    arguments: str


class ToolCall(RequestBody):
    """A call that the model has made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Message):
    """A message of a conversation in which tools may have been called."""

    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_CALLS)
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _allow_no_content(cls, fields: Any) -> Any:
        """An assistant that only calls, and a tool that has nothing to say, have none, or null, or an empty list."""
        if isinstance(fields, dict) and fields.get("role") in ("assistant", "tool"):
            return fields | {"content": fields.get("content") or ""}
        return fields


class ToolFields(RequestBody):
    """The fields about tools, and about how the model's template is filled in."""

    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, max_length=_MAX_KWARGS)

    @field_validator("chat_template_kwargs", mode="after")
    @classmethod
    def _fits_a_template(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in value or ():
            if not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
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
                _reject(f"There are two tools called '{name}'", f"tools[{number}].function.name")
        if not names and self.tool_choice not in (None, "none", "auto"):
            _reject("'tool_choice' needs 'tools'", "tool_choice")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            _reject(f"There is no tool called '{self.tool_choice.function.name}'", "tool_choice.function.name")
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
    """Return the tools as templates take them: some look into the parameters of each."""
    return [{"type": tool.type, "function": _described(tool.function)} for tool in body.callable_tools]


def tool_parameters(model: Model, body: ToolFields, form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the backend has to know: `chat_template_kwargs`, `visible_tokens`, the `constraint` if it must call.

    `form` is what the answer must look like by another field: a model that may call either calls, or keeps to it.
    Raises EngineFailure for a model whose configuration names no known format.
    """
    tools = body.callable_tools
    tags: tuple[str, ...] = TAGS if _reasons(model) else ()
    parameters: dict[str, Any] = {"chat_template_kwargs": body.template_kwargs()}
    if tools:
        tags += _tool_format(model).tags
    is_free = body.tool_choice in (None, "auto")
    if tools and (not is_free or (form and form["kind"] != "grammar")):
        chosen = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else None
        functions = [tool.function.model_dump() for tool in tools if chosen in (None, tool.function.name)]
        maximum = 1 if chosen or body.parallel_tool_calls is False else _MAX_FORCED
        calls = _tool_format(model).constrain(functions, maximum)
        parameters["constraint"] = {"kind": "either", "of": [calls, form], "param": "tools"} if is_free else calls
    parameters["visible_tokens"] = tags
    return {name: value for name, value in parameters.items() if value}


def call_fields(message: ChatMessage, model: Model) -> dict[str, Any]:
    """Return what a template gets of a message that calls tools, or answers a call.

    Arguments are objects, which is what templates are written for. Without text the content is null, by which some tell
    that the message is all calls.
    """
    fields: dict[str, Any] = {}
    if message.role == "tool":
        fields["tool_call_id"] = _id(message.tool_call_id or "", model)
        fields |= {"name": message.name} if message.name else {}
    if message.role != "assistant":
        return fields
    if message.reasoning_content:
        fields["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        fields["tool_calls"] = [_call(call, model) for call in message.tool_calls]
        fields |= {} if message.content else {"content": None}
    return fields


def pipeline_factory(model: Model, body: ToolFields) -> Callable[[], ParserPipeline]:
    """Return what makes the reader of one answer. Raises InvalidRequest for tools that nothing can call."""
    names = {tool.function.name for tool in body.callable_tools}
    if names and model.task != "chat":
        _reject(f"The model '{model.id}' calls no tools", "tools")
    maximum = 1 if body.parallel_tool_calls is False else MAX_CALLS
    reasons, tool_format = _reasons(model), _tool_format(model) if names else None

    def new_pipeline() -> ParserPipeline:
        parsers: list[Parser] = [ReasoningParser()] if reasons else []
        return ParserPipeline([*parsers, ToolParser(tool_format, names, maximum)] if tool_format else parsers)

    return new_pipeline


def _reasons(model: Model) -> bool:
    return model.parameters.get("reasoning") == "think"


def _tool_format(model: Model) -> ToolFormat:
    name = model.parameters.get("tool_format", DEFAULT)
    if name not in TOOL_FORMATS:
        raise EngineFailure(f"The configuration of '{model.name}' has the unknown tool_format '{name}'")
    return TOOL_FORMATS[name]


def _described(function: Function) -> dict[str, Any]:
    description = {} if function.description is None else {"description": function.description}
    parameters = function.parameters or {"type": "object", "properties": {}}
    return {"name": function.name} | description | {"parameters": parameters}


def _call(call: ToolCall, model: Model) -> dict[str, Any]:
    arguments = _arguments(call.function.arguments)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": _id(call.id, model), "type": "function", "function": function}


def _id(id: str, model: Model) -> str:
    """Return the id of a call as the model's template takes it: another model may have made it."""
    length = TOOL_FORMATS.get(model.parameters.get("tool_format", ""), TOOL_FORMATS[DEFAULT]).id_length
    if length is None or (len(id) == length and id.isalnum()):
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:length]


def checked_calls(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Return the messages. Raises InvalidRequest for calls that are none, and for answers without a call."""
    callable_ids: set[str] = set()
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        if message.role == "tool":
            _check_answer(message, path, callable_ids)
            continue
        callable_ids = set()
        if message.tool_calls and message.role != "assistant":
            _reject("Only an assistant's message has calls", f"{path}.tool_calls")
        for place, call in enumerate(message.tool_calls or ()):
            _check_call(call, f"{path}.tool_calls[{place}]", callable_ids)
            callable_ids.add(call.id)
    return messages


def _check_answer(message: ChatMessage, path: str, callable_ids: Iterable[str]) -> None:
    if message.tool_call_id is None:
        raise InvalidRequest(
            f"Invalid request: missing required parameter '{path}.tool_call_id'",
            param=f"{path}.tool_call_id",
            code="missing_parameter",
        )
    if message.tool_call_id not in callable_ids:
        _reject("No call with this id comes before it", f"{path}.tool_call_id")
    for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.kind != "text":
            _reject("A tool answers with text alone", f"{path}.content[{place}]")


def _check_call(call: ToolCall, path: str, others: Iterable[str]) -> None:
    if call.id in others:
        _reject("Two calls have this id", f"{path}.id")
    if levels_beyond(_arguments(call.function.arguments), MAX_LEVELS):
        _reject(f"Arguments nested deeper than {MAX_LEVELS} levels", f"{path}.function.arguments")


def _arguments(written: str) -> dict[str, Any]:
    """Return a call's arguments. Those of a call that was cut off are no JSON, and clients send them back as well."""
    try:
        arguments = orjson.loads(written or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": written}


def _check_depth(value: Any) -> None:
    """Raise ValueError if it is nested too deep for what is to be done with it."""
    if levels_beyond(value, MAX_LEVELS):
        raise ValueError(f"nested deeper than {MAX_LEVELS} levels")


def _reject(message: str, param: str) -> NoReturn:
    raise InvalidRequest(message, param=param)


Conversation = Annotated[list[ChatMessage], Field(min_length=1), AfterValidator(checked_calls)]
"""The messages of a request."""
