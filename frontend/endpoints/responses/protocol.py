"""What POST /responses takes."""

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

# Echoed as they came, or as OpenAI's defaults.
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
    """The responses API's way to ask for JSON by a schema."""

    type: Literal["json_schema"]


class TextFields(RequestBody):
    """What the text of the answer is to be like."""

    format: ResponseFormat[JSONSchemaTextFormat] | None = None

    @model_validator(mode="before")
    @classmethod
    def _reject_verbosity(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            reject_unsupported({"text.verbosity": fields.get("verbosity")}, {"text.verbosity": ("medium",)})
        return fields


class ReasoningFields(RequestBody):
    """How much a model is to think. Summaries are not made: the thoughts themselves are in the output."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class OfAFunction(RequestBody):
    """Functions are the only kind of tools."""

    type: Literal["function"]

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("type", "function") != "function":
            raise ValueError("functions are the only tools that are supported")
        return fields


class FunctionTool(OfAFunction, Function):
    """A tool as the responses API has it."""

    def as_tool(self) -> Tool:
        """Return it as chat has it."""
        return Tool(type="function", function=Function.model_construct(**self.model_dump(exclude={"type"})))


class NamedFunctionTool(OfAFunction, NamedFunction):
    """The one tool that is to be called."""

    def as_tool(self) -> NamedTool:
        """Return it as chat has it."""
        return NamedTool(type="function", function=self)


class ResponseRequest(SamplingFields):
    """The body of OpenAI's operation createResponse, and the sampling fields vLLM's clients add to it."""

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

    model: str
    input: Input
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: ReasoningFields | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    text: TextFields | None = None
    tools: list[FunctionTool] | None = Field(None, max_length=128)
    tool_choice: ToolChoice[NamedFunctionTool] | None = None
    user: str | None = None

    @property
    def token_limit(self) -> int | None:
        """How long the answer may be."""
        return self.max_output_tokens

    def constraint(self) -> Constraint | None:
        """Return what the output must match. Raises InvalidRequest."""
        text_format = self.text.format if self.text else None
        return text_format.constraint("text.format") if text_format else None

    def tool_fields(self) -> ToolFields:
        """Return what is said of tools and of thinking, as chat has it. Raises InvalidRequest."""
        choice = self.tool_choice.as_tool() if isinstance(self.tool_choice, NamedFunctionTool) else self.tool_choice
        with located(lambda name: name and name.replace(".function", "")):
            return ToolFields(
                tools=[tool.as_tool() for tool in self.tools or ()],
                tool_choice=choice,
                parallel_tool_calls=self.parallel_tool_calls,
                reasoning_effort=self.reasoning.effort if self.reasoning else None,
            )

    def echoed(self) -> dict[str, Any]:
        """Return what a response says of the request that it answers."""
        given = {name: getattr(self, name) for name in _ECHOED}
        return {name: default if given[name] is None else given[name] for name, default in _ECHOED.items()} | {
            "background": False,
            "reasoning": {"effort": None, "summary": None} | _dumped(self.reasoning),
            "service_tier": "default",
            "text": {"format": self._form_asked_for(), "verbosity": "medium"},
            "tool_choice": _dumped(self.tool_choice) or self.tool_choice or "auto",
            "tools": [_dumped(tool) for tool in self.tools or ()],
            "top_logprobs": 0,
            "truncation": "disabled",
        }

    def _form_asked_for(self) -> dict[str, Any]:
        form = self.text.format if self.text else None
        return form.model_dump(by_alias=True) if form else {"type": "text"}

    def conversation(self) -> list[LocatedMessage]:
        """Return the messages of `input`. Raises InvalidRequest."""
        if isinstance(self.input, str):
            return [LocatedMessage(ChatMessage(role="user", content=self.input), "input")]
        messages = read_items(self.input)
        if not messages:
            raise InvalidRequest("There is nothing to be answered in the input", param="input")
        return messages


def _dumped(value: Any) -> dict[str, Any]:
    return value.model_dump() if isinstance(value, RequestBody) else {}
