"""The request body of POST /responses."""

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from contract.constraints import Constraint
from frontend.endpoints.responses.items import Input, LocatedMessage, read_items, with_stored_items
from frontend.errors import InvalidRequest, located
from frontend.generation.messages import ChatMessage
from frontend.generation.sampling import CACHE_KEY, SamplingFields, generation_defaults
from frontend.generation.structured_output import JSONSchemaFormat, ObjectFormat, ResponseFormat
from frontend.generation.tools import Effort, Function, NamedFunction, NamedTool, Tool, ToolFields
from frontend.http.body import RequestBody, reject_unsupported
from frontend.triton.model import Model

log = logging.getLogger(__name__)

# The request fields that the response repeats, mapped to the values that it has for omitted fields: OpenAI's defaults.
_ECHOED: dict[str, Any] = {
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "user": None,
}


class JSONSchemaTextFormat(JSONSchemaFormat):
    """JSON that matches a schema. Unlike in chat completions, these fields are not nested in `json_schema`."""

    type: Literal["json_schema"] = Field(description="Always `json_schema`.")


class TextFields(RequestBody):
    """Options for the output text."""

    format: ResponseFormat[JSONSchemaTextFormat] | None = Field(
        None, description="Constrain the output to any JSON object, or to JSON that matches a schema."
    )

    @model_validator(mode="before")
    @classmethod
    def _reject_verbosity(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            reject_unsupported({"text.verbosity": fields.get("verbosity")}, {"text.verbosity": ("medium",)})
        return fields


class ReasoningFields(RequestBody):
    """Options for reasoning. Trident generates no summaries: the output contains the reasoning itself."""

    effort: Effort | None = Field(
        None, description="Passed to the chat template; `none` also sets `enable_thinking` to false."
    )
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="Ignored: the output contains the reasoning itself."
    )


class FunctionOnly(RequestBody):
    """The base class of tools and tool choices, which must be functions."""

    type: Literal["function"] = Field(description="Always `function`.")

    @model_validator(mode="before")
    @classmethod
    def _reject_other_types(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("type", "function") != "function":
            raise ValueError("only tools of type 'function' are supported")
        return fields


class FunctionTool(FunctionOnly, Function):
    """A function that the model may call. Unlike in chat completions, these fields are not nested in `function`."""

    def as_tool(self) -> Tool:
        """Return the tool in the format of chat completions."""
        return Tool(type="function", function=Function.model_construct(**self.model_dump(exclude={"type"})))


class OtherTool(RequestBody):
    """A tool that is not a function, such as `web_search`. It is not offered to the model."""

    type: str = Field(description="Any other type.")


def _tag_of_tool(value: Any) -> str:
    kind = value.get("type", "function") if isinstance(value, dict) else getattr(value, "type", "")
    return "<function>" if kind == "function" else "<other>"


ToolOfAnyType = Annotated[
    Annotated[FunctionTool, Tag("<function>")] | Annotated[OtherTool, Tag("<other>")],
    Discriminator(_tag_of_tool),
]


class NamedFunctionTool(FunctionOnly, NamedFunction):
    """The one tool that the model must call."""


NamedToolOfAnyType = Annotated[
    Annotated[NamedFunctionTool, Tag("<function>")] | Annotated[OtherTool, Tag("<other>")],
    Discriminator(_tag_of_tool),
]


class AllowedTools(RequestBody):
    """The tools that the model may call, which are some of the request's tools."""

    type: Literal["allowed_tools"] = Field(description="Always `allowed_tools`.")
    mode: Literal["auto", "required"] = Field(description="`auto`: the model decides. `required`: one to eight calls.")
    tools: list[NamedToolOfAnyType] = Field(min_length=1, max_length=128, description="The tools that may be called.")

    @property
    def names(self) -> list[str]:
        """The names of the functions among the allowed tools."""
        return [tool.name for tool in self.tools if isinstance(tool, NamedFunctionTool)]


def _tag_of_choice(value: Any) -> str:
    if not isinstance(value, dict | BaseModel):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed>" if kind == "allowed_tools" else "<tool>"


class ResponseRequest(SamplingFields):
    """The request body of OpenAI's createResponse, with the sampling fields that vLLM adds."""

    unsupported: ClassVar = {
        "include": ([], ["reasoning.encrypted_content"]),
        "background": (False,),
        "conversation": (),
        "prompt": (),
        "context_management": ([],),
        "moderation": (),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
        "service_tier": ("auto", "default"),
    }

    model: str = Field(description="ID, name or alias of the model.")
    input: Input = Field(
        description="A string, or a list of items: messages, reasoning, tool calls and the outputs of tool calls."
    )
    instructions: str | None = Field(
        None,
        description="System message for this response; it does not apply to later responses that continue from this "
        "one.",
    )
    max_output_tokens: int | None = Field(
        None, ge=1, description="Maximum number of output tokens. The rest of the context if omitted."
    )
    max_tool_calls: int | None = Field(
        None,
        ge=1,
        description="Returned in the response; otherwise ignored, because it limits built-in tools, which Trident "
        "lacks.",
    )
    metadata: dict[str, str] | None = Field(None, description="Returned in the response; otherwise ignored.")
    parallel_tool_calls: bool = Field(True, description="If false, a response has at most one tool call.")
    previous_response_id: str | None = Field(None, description="ID of a stored response to continue from.")
    prompt_cache_key: str | None = Field(None, max_length=512, description=f"{CACHE_KEY} Returned in the response.")
    reasoning: ReasoningFields | None = Field(None, description="Options for reasoning.")
    safety_identifier: str | None = Field(None, description="Returned in the response; otherwise ignored.")
    store: bool = Field(True, description="Store the response and its conversation until they expire or are evicted.")
    text: TextFields | None = Field(None, description="Options for the output text.")
    tools: list[ToolOfAnyType] | None = Field(
        None,
        max_length=128,
        description="Functions that the model may call. Tools of other types are not offered to the model, and the "
        "response does not list them.",
    )
    tool_choice: Annotated[
        Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
        | Annotated[NamedFunctionTool, Tag("<tool>")]
        | Annotated[AllowedTools, Tag("<allowed>")],
        Discriminator(_tag_of_choice),
    ] = Field(
        "auto",
        description="`auto`: the model decides. `required`: one to eight tool calls. An object: one call to the "
        "function that the object names, or with the type `allowed_tools`, calls to the tools that it lists. If calls "
        "are required, arguments match the schema in `parameters`, except for unsupported keywords.",
    )
    user: str | None = Field(None, description="Returned in the response; otherwise ignored.")

    @property
    def token_limit(self) -> int | None:
        """The maximum number of output tokens. None means the rest of the model's context."""
        return self.max_output_tokens

    def constraint(self) -> Constraint | None:
        """Return the constraint on the output, if any. Raises InvalidRequest."""
        text_format = self.text.format if self.text else None
        return text_format.constraint("text.format") if text_format else None

    def tool_fields(self) -> ToolFields:
        """Return the fields for tools and reasoning in the format of chat completions. Raises InvalidRequest."""
        if skipped := [tool.type for tool in self.tools or () if isinstance(tool, OtherTool)]:
            log.info("tools that are not functions are not offered to the model: %r", ", ".join(skipped)[:200])
        offered = self._offered()
        if isinstance(self.tool_choice, AllowedTools):
            names = [function.name for function in offered.values()]
            for index, name in enumerate(self.tool_choice.names):
                if name not in names:
                    message = f"'tool_choice' names an unknown tool: '{name}'"
                    raise InvalidRequest(message, param=f"tool_choice.tools[{index}].name")
        with self.tool_paths():
            return ToolFields(
                tools=[function.as_tool() for function in offered.values()],
                tool_choice=_in_chat_format(self.tool_choice),
                parallel_tool_calls=self.parallel_tool_calls,
                reasoning_effort=self.reasoning.effort if self.reasoning else None,
            )

    def tool_paths(self) -> AbstractContextManager[None]:
        """Make errors raised in the block name tools by their paths in the request.

        For example, `tools[0].function.name` becomes `tools[1].name` if the first tool is not a function.
        """
        positions = list(self._offered())

        def path(name: str | None) -> str | None:
            found = re.fullmatch(r"tools\[(\d+)\]\.function(.*)", name or "")
            return f"tools[{positions[int(found[1])]}]{found[2]}" if found else name and name.replace(".function", "")

        return located(path)

    def _offered(self) -> dict[int, FunctionTool]:
        """Return the functions that are offered to the model, by their index in `tools`."""
        functions = {index: tool for index, tool in enumerate(self.tools or ()) if isinstance(tool, FunctionTool)}
        if isinstance(self.tool_choice, AllowedTools):
            names = self.tool_choice.names
            return {index: function for index, function in functions.items() if function.name in names}
        return functions

    def echoed(self, model: Model) -> dict[str, Any]:
        """Return the request fields that the response repeats, with the defaults of `model`."""
        defaults = _ECHOED | {name: value for name, value in generation_defaults(model).items() if name in _ECHOED}
        given = {name: getattr(self, name) for name in _ECHOED}
        return {name: default if given[name] is None else given[name] for name, default in defaults.items()} | {
            "background": False,
            "reasoning": {"effort": None, "summary": None} | _dumped(self.reasoning),
            "service_tier": "default",
            "text": {"format": self._text_format(), "verbosity": "medium"},
            "tool_choice": _dumped(self.tool_choice) or self.tool_choice,
            "tools": [_dumped(tool) for tool in self.tools or () if isinstance(tool, FunctionTool)],
            "top_logprobs": 0,
            "truncation": "disabled",
        }

    def _text_format(self) -> dict[str, Any]:
        text_format = self.text.format if self.text else None
        if isinstance(text_format, ObjectFormat):
            return text_format.model_dump(by_alias=True, exclude_none=True)
        return text_format.model_dump(by_alias=True) if text_format else {"type": "text"}

    def conversation(self, stored_item: Callable[[str], dict[str, Any] | None]) -> list[LocatedMessage]:
        """Return `input` as chat messages; `stored_item` returns the stored output item with an ID.

        Raises InvalidRequest, or NotFound for a reference to an item that is not stored.
        """
        if isinstance(self.input, str):
            return [LocatedMessage(ChatMessage(role="user", content=self.input), "input")]
        messages = read_items(with_stored_items(self.input, stored_item))
        if not messages:
            raise InvalidRequest("'input' has no message to respond to", param="input")
        return messages


def _in_chat_format(choice: str | NamedFunctionTool | AllowedTools) -> Any:
    if isinstance(choice, NamedFunctionTool):
        return NamedTool(type="function", function=choice)
    if isinstance(choice, AllowedTools):
        return choice.mode
    return choice


def _dumped(value: Any) -> dict[str, Any]:
    return value.model_dump() if isinstance(value, RequestBody) else {}
