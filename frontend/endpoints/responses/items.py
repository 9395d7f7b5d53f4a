"""The items of a conversation as the responses API has them, and the messages that they mean."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from frontend.errors import InvalidRequest, located
from frontend.generation.messages import (
    MAX_CALLS,
    CalledFunction,
    ChatMessage,
    Content,
    ContentPart,
    MediaUrl,
    ToolCall,
    require_field,
    unchecked_parts,
)
from frontend.generation.tools import Name
from frontend.http.body import RequestBody, tag_of

_MESSAGE = re.compile(r"messages(?:\[(\d+)\](.*))?")
_CONTENT = re.compile(r"\.content\[(\d+)\](.*)")
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
        require_field(self, {"refusal": "refusal", "input_image": "image_url"}.get(self.type, "text"))
        return self

    def as_part(self) -> ContentPart:
        """Return it as chat has it."""
        if self.type == "input_image":
            assert self.image_url is not None  # noqa: S101
            return ContentPart(type="image_url", image_url=MediaUrl(url=self.image_url))
        return ContentPart(type="text", text=self.refusal if self.type == "refusal" else self.text)


class InputMessage(RequestBody):
    """A message of anybody's, also one that was an output."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content[InputPart]


class FunctionCall(RequestBody):
    """A call that a model made."""

    call_id: str = Field(min_length=1)
    name: Name
    arguments: str


class FunctionCallOutput(RequestBody):
    """What came of a call."""

    call_id: str
    output: Content[InputPart]

    @field_validator("output", mode="before")
    @classmethod
    def _may_be_nothing(cls, value: Any) -> Any:
        return "" if value == [] else value


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


def _item_tag(item: Any) -> str:
    return tag_of(item, "message")


Items = Annotated[
    list[
        Annotated[
            InputItem,
            Discriminator(
                _item_tag, custom_error_type="kind", custom_error_message="items of this type are not supported"
            ),
        ]
    ],
    Field(min_length=1),
]
Input = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Items, Tag("<items>")],
    Discriminator(lambda value: "<items>" if isinstance(value, list) else "<text>"),
]
_OUTPUT = TypeAdapter(Items)


class LocatedMessage(NamedTuple):
    """A message, where in the request it stands, and where the parts of its content and the calls in it do."""

    message: ChatMessage
    path: str
    contents: Sequence[str] = ()
    calls: Sequence[str] = ()


class AssistantTurn:
    """What an assistant thought, said and called at once: items of their own, and one message."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thoughts: list[str] = []
        self._said: dict[str, str | list[ContentPart]] = {}
        self._calls: dict[str, ToolCall] = {}

    def goes_on_with(self, item: InputMessage | FunctionCall | Reasoning) -> bool:
        """Tell whether the item belongs to it: who has said something, and called nothing, is done."""
        return isinstance(item, FunctionCall) or bool(self._calls) or not self._said

    def add(self, item: InputMessage | FunctionCall | Reasoning, path: str) -> None:
        """Add an item. Raises InvalidRequest for one call too many."""
        match item:
            case Reasoning():
                self._thoughts.append(item.text)
            case FunctionCall(call_id=id, name=name, arguments=arguments):
                if len(self._calls) == MAX_CALLS:
                    raise InvalidRequest(f"There are more than {MAX_CALLS} calls in one turn", param=path)
                self._calls[path] = ToolCall(id=id, function=CalledFunction(name=name, arguments=arguments))
            case InputMessage(content=content):
                self._said[f"{path}.content"] = _content(content)

    def message(self, is_last: bool = False) -> LocatedMessage | None:
        """Return it as a message; None for thoughts that nothing came of, but for those that were cut off at last."""
        thoughts = "".join(self._thoughts) or None
        if not (self._said or self._calls or (thoughts and is_last)):
            return None
        said = list(self._said.values())
        content = said[0] if len(said) == 1 else [part for each in said for part in _parts_of(each)]
        contents = [path for field, each in self._said.items() for path in _paths(field, each)]
        calls = [*self._calls.values()] or None
        message = ChatMessage(role="assistant", content=content, tool_calls=calls, reasoning_content=thoughts)
        return LocatedMessage(message, self._path, contents, [*self._calls])


def read_items(items: Sequence[InputItem]) -> list[LocatedMessage]:
    """Return the messages that the items of `input` mean. Raises InvalidRequest."""
    found: list[LocatedMessage | None] = []
    turn: AssistantTurn | None = None
    for number, item in enumerate(items):
        path = f"input[{number}]"
        if isinstance(item, FunctionCallOutput) or (isinstance(item, InputMessage) and item.role != "assistant"):
            found += [turn.message()] if turn else []
            found.append(_locate(item, path))
            turn = None
            continue
        if turn and not turn.goes_on_with(item):
            found.append(turn.message())
            turn = None
        turn = turn or AssistantTurn(path)
        turn.add(item, path)
    found += [turn.message(is_last=True)] if turn else []
    return [message for message in found if message]


def read_output(output: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """Return the messages that the output of a response means to the next one."""
    return [one.message for one in read_items(_OUTPUT.validate_python(output))]


def _locate(item: InputMessage | FunctionCallOutput, path: str) -> LocatedMessage:
    if isinstance(item, FunctionCallOutput):
        message = ChatMessage(role="tool", content=_content(item.output), tool_call_id=item.call_id)
        return LocatedMessage(message, path, _paths(f"{path}.output", message.content))
    message = ChatMessage(role=item.role, content=_content(item.content))
    return LocatedMessage(message, path, _paths(f"{path}.content", message.content))


def _paths(field: str, content: str | list[ContentPart]) -> list[str]:
    return [field] if isinstance(content, str) else [f"{field}[{number}]" for number in range(len(content))]


def _content(content: str | list[InputPart]) -> str | list[ContentPart]:
    return content if isinstance(content, str) else [part.as_part() for part in content]


def _parts_of(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart(type="text", text=content)] if isinstance(content, str) else content


def with_request_paths(conversation: Sequence[LocatedMessage]) -> AbstractContextManager[None]:
    """Have an error name a part of the conversation as the request does, and not as chat would."""
    return located(lambda name: _path(name, conversation))


def _path(param: str | None, conversation: Sequence[LocatedMessage]) -> str | None:
    found = _MESSAGE.fullmatch(param or "")
    if not found:
        return param
    if found[1] is None or int(found[1]) >= len(conversation):
        return "input"
    source, rest = conversation[int(found[1])], found[2]
    if not source.path.startswith("input["):
        return source.path
    if call := _CALL.fullmatch(rest):
        return source.calls[int(call[1])] + _renamed(call[2])
    if part := _CONTENT.fullmatch(rest):
        return source.contents[int(part[1])] + _renamed(part[2])
    return source.path + _renamed(rest)


def _renamed(field: str) -> str:
    for theirs, ours in _FIELDS.items():
        if field.endswith(theirs):
            return field.removesuffix(theirs) + ours
    return field


def inline_image_size(fields: Any) -> int:
    """Return how many characters of a request, as parsed, are images inside of its input."""
    return sum(len(url) for part in unchecked_parts(fields, "input") if isinstance(url := part.get("image_url"), str))
