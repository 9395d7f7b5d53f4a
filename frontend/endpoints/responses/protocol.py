"""The request body of POST /responses."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contract.constraints import Constraint
from frontend.endpoints.responses.items import Input, LocatedMessage, read_items
from frontend.errors import InvalidRequest, located
from frontend.generation.messages import ChatMessage
from frontend.generation.sampling import SamplingFields
from frontend.generation.structured_output import JSONSchemaFormat, ResponseFormat
from frontend.generation.tools import Effort, Function, NamedFunction, NamedTool, Tool, ToolChoice, ToolFields
from frontend.http.body import RequestBody, reject_unsupported

# The request fields that the response repeats, mapped to the values that it has for omitted fields: OpenAI's defaults.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
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
    """A tool. Only functions are supported. Unlike in chat completions, these fields are not nested in `function`."""

    def as_tool(self) -> Tool:
        """Return the tool in the format of chat completions."""
        return Tool(type="function", function=Function.model_construct(**self.model_dump(exclude={"type"})))


class NamedFunctionTool(FunctionOnly, NamedFunction):
    """The one tool that the model must call."""

    def as_tool(self) -> NamedTool:
        """Return the tool choice in the format of chat completions."""
        return NamedTool(type="function", function=self)


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
    prompt_cache_key: str | None = Field(None, description="Returned in the response; otherwise ignored.")
    reasoning: ReasoningFields | None = Field(None, description="Options for reasoning.")
    safety_identifier: str | None = Field(None, description="Returned in the response; otherwise ignored.")
    store: bool = Field(True, description="Store the response and its conversation until they expire or are evicted.")
    text: TextFields | None = Field(None, description="Options for the output text.")
    tools: list[FunctionTool] | None = Field(None, max_length=128, description="Functions that the model may call.")
    tool_choice: ToolChoice[NamedFunctionTool] = Field(
        "auto",
        description="`auto`: the model decides. `required`: one to eight tool calls. An object: one call to the "
        "function that the object names. With `required` or an object, arguments match the schema in `parameters`, "
        "except for unsupported keywords.",
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
        choice = self.tool_choice.as_tool() if isinstance(self.tool_choice, NamedFunctionTool) else self.tool_choice
        with located(lambda name: name and name.replace(".function", "")):
            return ToolFields(
                tools=[tool.as_tool() for tool in self.tools or ()],
                tool_choice=choice,
                parallel_tool_calls=self.parallel_tool_calls,
                reasoning_effort=self.reasoning.effort if self.reasoning else None,
            )

    def echoed(self) -> dict[str, Any]:
        """Return the request fields that the response repeats."""
        given = {name: getattr(self, name) for name in _ECHOED}
        return {name: default if given[name] is None else given[name] for name, default in _ECHOED.items()} | {
            "background": False,
            "reasoning": {"effort": None, "summary": None} | _dumped(self.reasoning),
            "service_tier": "default",
            "text": {"format": self._text_format(), "verbosity": "medium"},
            "tool_choice": _dumped(self.tool_choice) or self.tool_choice,
            "tools": [_dumped(tool) for tool in self.tools or ()],
            "top_logprobs": 0,
            "truncation": "disabled",
        }

    def _text_format(self) -> dict[str, Any]:
        text_format = self.text.format if self.text else None
        return text_format.model_dump(by_alias=True) if text_format else {"type": "text"}

    def conversation(self) -> list[LocatedMessage]:
        """Return `input` as chat messages. Raises InvalidRequest."""
        if isinstance(self.input, str):
            return [LocatedMessage(ChatMessage(role="user", content=self.input), "input")]
        messages = read_items(self.input)
        if not messages:
            raise InvalidRequest("'input' has no message to respond to", param="input")
        return messages


def _dumped(value: Any) -> dict[str, Any]:
    return value.model_dump() if isinstance(value, RequestBody) else {}
