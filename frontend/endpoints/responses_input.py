"""The items of a conversation as the responses API has them, and the messages that they mean."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from frontend.endpoints.body import RequestBody
from frontend.endpoints.chat_tools import CalledFunction, ChatMessage, Name, ToolCall
from frontend.endpoints.messages import ContentPart, MediaUrl
from frontend.errors import APIError

_MESSAGE = re.compile(r"messages(?:\[(\d+)\](.*))?")
_CALL = re.compile(r"\.tool_calls\[(\d+)\](?:\.function)?(.*)")

# What fields of a message are called in an item.
_FIELDS = {".image_url.url": ".image_url", ".tool_call_id": ".call_id", ".id": ".call_id"}


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

    call_id: str = Field(min_length=1)
    name: Name
    arguments: str


class FunctionCallOutput(RequestBody):
    """What came of a call."""

    call_id: str
    output: Content


class ReasoningText(RequestBody):
    """Some of what a model thought."""

    text: str = ""


class Reasoning(RequestBody):
    """What a model thought before what it said or called next; that of OpenAI's own models is not to be read."""

    content: list[ReasoningText] | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(part.text for part in self.content or ())


InputItem = (
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[Reasoning, Tag("<reasoning>")]
)


def _kind(item: Any) -> str:
    return f"<{item.get('type') or 'message'}>" if isinstance(item, dict) else "<message>"


Items = Annotated[
    list[
        Annotated[
            InputItem,
            Discriminator(_kind, custom_error_type="kind", custom_error_message="items of this type are not supported"),
        ]
    ],
    Field(min_length=1),
]
Input = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Items, Tag("<items>")],
    Discriminator(lambda value: "<items>" if isinstance(value, list) else "<text>"),
]
_OUTPUT = TypeAdapter(Items)


class Placed(NamedTuple):
    """A message, where in the request it stands, and where the calls in it do."""

    message: ChatMessage
    place: str
    calls: Sequence[str] = ()


def read_items(items: Sequence[InputItem]) -> list[Placed]:
    """Return the messages that the items of `input` mean.

    What an assistant thought, said and called in one turn are items of their own, and one message.
    """
    found: list[Placed] = []
    thought = ""
    for number, item in enumerate(items):
        place = f"input[{number}]"
        if isinstance(item, Reasoning):
            thought += item.text
            continue
        placed = _read(item, place, thought or None)
        if placed.calls and found and not thought and found[-1].message.role == "assistant":
            last = found.pop()
            calls = [*(last.message.tool_calls or ()), *(placed.message.tool_calls or ())]
            placed = Placed(
                last.message.model_copy(update={"tool_calls": calls}), last.place, [*last.calls, *placed.calls]
            )
        found.append(placed)
        thought = ""
    return found


def read_output(output: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """Return the messages that the output of a response means to the next one."""
    return [placed.message for placed in read_items(_OUTPUT.validate_python(output))]


def _read(item: InputMessage | FunctionCall | FunctionCallOutput, place: str, thought: str | None) -> Placed:
    match item:
        case FunctionCall(call_id=id, name=name, arguments=arguments):
            call = ToolCall(id=id, function=CalledFunction(name=name, arguments=arguments))
            return Placed(
                ChatMessage(role="assistant", content="", tool_calls=[call], reasoning_content=thought), place, [place]
            )
        case FunctionCallOutput(call_id=id, output=output):
            return Placed(ChatMessage(role="tool", content=_content(output), tool_call_id=id), place)
        case InputMessage(role=role, content=content):
            own = thought if role == "assistant" else None
            return Placed(ChatMessage(role=role, content=_content(content), reasoning_content=own), place)


def _content(content: str | list[InputPart]) -> str | list[ContentPart]:
    return content if isinstance(content, str) else [part.as_part() for part in content]


@contextmanager
def named_by(conversation: Sequence[Placed]) -> Iterator[None]:
    """Have an error name a part of the conversation as the request does, and not as chat would."""
    try:
        yield
    except APIError as error:
        error.param = _place(error.param, conversation)
        raise


def _place(param: str | None, conversation: Sequence[Placed]) -> str | None:
    found = _MESSAGE.fullmatch(param or "")
    if not found:
        return param
    if found[1] is None:
        return "input"
    placed, rest = conversation[int(found[1])], found[2]
    if not placed.place.startswith("input["):
        return placed.place
    if call := _CALL.fullmatch(rest):
        return placed.calls[int(call[1])] + _renamed(call[2])
    if placed.message.role == "tool":
        rest = rest.replace(".content", ".output")
    return placed.place + _renamed(rest)


def _renamed(field: str) -> str:
    for theirs, ours in _FIELDS.items():
        if field.endswith(theirs):
            return field.removesuffix(theirs) + ours
    return field


def inline_image_size(fields: Any) -> int:
    """Return how many characters of a request, as parsed, are images inside of its input."""
    items = fields.get("input") if isinstance(fields, dict) else None
    contents = [item.get("content") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return sum(len(url) for part in _parts(contents) if isinstance(url := part.get("image_url"), str))


def _parts(contents: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for content in contents:
        yield from (part for part in content if isinstance(part, dict)) if isinstance(content, list) else ()
