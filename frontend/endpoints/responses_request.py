"""What POST /responses takes, and the conversation that it means."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from frontend.endpoints.body import RequestBody, refuse_unsupported
from frontend.endpoints.chat_constraint import JSONSchemaFormat, ObjectFormat, TextFormat, form_kind
from frontend.endpoints.chat_tools import ChatMessage
from frontend.endpoints.messages import ContentPart, MediaUrl
from frontend.endpoints.sampling import SamplingFields
from frontend.errors import InvalidRequest

# Fields that are not served, each with the values that ask for nothing and so are let through.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "include": ([], ["reasoning.encrypted_content"]),
    "reasoning": ({},),
    "background": (False,),
    "conversation": (),
    "prompt": (),
    "context_management": ([],),
    "moderation": (),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "service_tier": ("auto", "default"),
}

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


class InputPart(RequestBody):
    """One part of an item's content."""

    type: Literal["input_text", "output_text", "refusal", "input_image"]
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None

    @model_validator(mode="after")
    def _has_content(self) -> "InputPart":
        wanted = {"refusal": "refusal", "input_image": "image_url"}.get(self.type, "text")
        if getattr(self, wanted) is None:
            raise ValueError(f"a part of type {self.type} needs '{wanted}'")
        return self

    def as_part(self) -> ContentPart:
        """Return it as chat has it."""
        if self.image_url is not None:
            return ContentPart(type="image_url", image_url=MediaUrl(url=self.image_url))
        return ContentPart(type="text", text=self.refusal if self.text is None else self.text)


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[InputPart], Field(min_length=1), Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]


class InputMessage(RequestBody):
    """A message of anybody's, also one that was an output."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class FunctionCall(RequestBody):
    """A call that a model made."""

    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(RequestBody):
    """What came of a call."""

    call_id: str
    output: Content


class Reasoning(RequestBody):
    """What a model thought, which is nobody's business any more."""


InputItem = (
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[Reasoning, Tag("<reasoning>")]
)


def _kind(item: Any) -> str:
    return f"<{item.get('type') or 'message'}>" if isinstance(item, dict) else "<message>"


_Items = Annotated[
    list[
        Annotated[
            InputItem,
            Discriminator(_kind, custom_error_type="kind", custom_error_message="items of this type are not supported"),
        ]
    ],
    Field(min_length=1),
]
Input = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[_Items, Tag("<items>")],
    Discriminator(lambda value: "<items>" if isinstance(value, list) else "<text>"),
]


class SchemaForm(JSONSchemaFormat):
    """The responses API's way to ask for JSON by a schema."""

    type: Literal["json_schema"]


Form = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[ObjectFormat, Tag("<json_object>")]
    | Annotated[SchemaForm, Tag("<json_schema>")],
    Discriminator(form_kind, custom_error_type="kind", custom_error_message="must be text, json_object or json_schema"),
]


class TextFields(RequestBody):
    """What the text of the answer is to be like."""

    format: Form | None = None


class ResponseRequest(SamplingFields):
    """The body of OpenAI's operation createResponse, and the sampling fields vLLM's clients add to it."""

    model: str
    input: Input
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    text: TextFields | None = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if isinstance(reasoning := fields.get("reasoning"), dict):
            fields = fields | {"reasoning": {name: value for name, value in reasoning.items() if value is not None}}
        refuse_unsupported(fields, _UNSUPPORTED)
        text = fields.get("text")
        if isinstance(text, dict):
            refuse_unsupported(
                {f"text.{name}": value for name, value in text.items()},
                {"text.verbosity": ("medium",)},
            )
        return fields

    @property
    def most_tokens(self) -> int | None:
        """How long the answer may be."""
        return self.max_output_tokens

    def sampling_parameters(self, number: int = 0) -> dict[str, Any]:
        """Return what the backend is to sample with, and the form that the answer is to have."""
        form = self.text.format if self.text else None
        constraint: dict[str, Any] | None = None
        if isinstance(form, ObjectFormat):
            constraint = {"kind": "json_object", "param": "text.format"}
        elif isinstance(form, SchemaForm):
            constraint = form.constraint("text.format.schema")
        return super().sampling_parameters(number) | ({"constraint": constraint} if constraint else {})

    def echoed(self) -> dict[str, Any]:
        """Return what a response says of the request that it answers."""
        given = {name: getattr(self, name) for name in _ECHOED}
        return {name: default if given[name] is None else given[name] for name, default in _ECHOED.items()} | {
            "background": False,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "text": {"format": self._form_asked_for(), "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "truncation": "disabled",
        }

    def _form_asked_for(self) -> dict[str, Any]:
        form = self.text.format if self.text else None
        return form.model_dump(by_alias=True) if form else {"type": "text"}

    def messages(self) -> dict[str, ChatMessage]:
        """Return the messages of `input` in order, each under the name of the field that it stands in."""
        if isinstance(self.input, str):
            return {"input": ChatMessage(role="user", content=self.input)}
        items = {f"input[{place}]": item for place, item in enumerate(self.input)}
        messages = {place: _message(item, place) for place, item in items.items() if not isinstance(item, Reasoning)}
        if not messages:
            raise InvalidRequest("There is nothing to be answered in the input", param="input")
        return messages


def _message(item: InputMessage | FunctionCall | FunctionCallOutput, place: str) -> ChatMessage:
    """Return an item as chat has it. Raises InvalidRequest for what belongs to tools."""
    if not isinstance(item, InputMessage):
        raise InvalidRequest("Tools are not supported", param=place, code="unsupported_parameter")
    content = item.content if isinstance(item.content, str) else [part.as_part() for part in item.content]
    return ChatMessage(role=item.role, content=content)


def inline_image_size(fields: Any) -> int:
    """Return how many characters of a request, as parsed, are images inside of its input."""
    items = fields.get("input") if isinstance(fields, dict) else None
    contents = [item.get("content") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    return sum(len(url) for part in parts if isinstance(url := part.get("image_url"), str))
