"""The Responses API's input items, and their conversion to chat messages."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from frontend.errors import InvalidRequest, NotFound, located
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

# A reference is short, but the item that it stands for may be large.
_MAX_REFERENCES = 256

_MESSAGE = re.compile(r"messages(?:\[(\d+)\](.*))?")
_CONTENT = re.compile(r"\.content\[(\d+)\](.*)")
_CALL = re.compile(r"\.tool_calls\[(\d+)\](?:\.function)?(.*)")

# The end of a field's path in a chat message → the end of its path in an input item.
_FIELDS = {".image_url.url": ".image_url", ".tool_call_id": ".call_id", ".id": ".call_id"}


class InputPart(RequestBody):
    """One part of an item's content."""

    type: Literal["input_text", "output_text", "refusal", "input_image"] = Field(description="Kind of the part.")
    text: str | None = Field(None, description="The text of an `input_text` or `output_text` part.")
    refusal: str | None = Field(None, description="The text of a `refusal` part.")
    image_url: str | None = Field(
        None,
        description="URL of the image of an `input_image` part. The supported URL schemes are the same as in chat "
        "completions.",
    )

    @model_validator(mode="after")
    def _has_content(self) -> "InputPart":
        require_field(self, {"refusal": "refusal", "input_image": "image_url"}.get(self.type, "text"))
        return self

    def as_part(self) -> ContentPart:
        """Return the part as a content part of a chat message."""
        if self.type == "input_image":
            assert self.image_url is not None  # noqa: S101
            return ContentPart(type="image_url", image_url=MediaUrl(url=self.image_url))
        return ContentPart(type="text", text=self.refusal if self.type == "refusal" else self.text)


class InputMessage(RequestBody):
    """A message, which may come from the output of an earlier response."""

    type: Literal["message"] = Field("message", description="Always `message`.")
    role: Literal["system", "developer", "user", "assistant"] = Field(description="Author of the message.")
    content: Content[InputPart] = Field(description="A string, or a list of content parts.")


class FunctionCall(RequestBody):
    """A tool call that the model has made."""

    type: Literal["function_call"] = Field(description="Always `function_call`.")
    call_id: str = Field(min_length=1, description="ID of the call.")
    name: Name = Field(description="Name of the function.")
    arguments: str = Field(description="The arguments, as JSON text.")


class FunctionCallOutput(RequestBody):
    """The result of a tool call."""

    type: Literal["function_call_output"] = Field(description="Always `function_call_output`.")
    call_id: str = Field(description="ID of the preceding call whose result this is.")
    output: Content[InputPart] = Field(description="A string, or a list of text parts; may be empty.")

    @field_validator("output", mode="before")
    @classmethod
    def _accept_empty_list(cls, value: Any) -> Any:
        return "" if value == [] else value


class ReasoningText(RequestBody):
    """A part of the model's reasoning."""

    text: str = Field("", description="The reasoning text.")


class Reasoning(RequestBody):
    """The model's reasoning before its next message or tool call. OpenAI's encrypted reasoning is ignored."""

    type: Literal["reasoning"] = Field(description="Always `reasoning`.")
    content: list[ReasoningText] | None = Field(None, description="Parts of the reasoning.")

    @property
    def text(self) -> str:
        """The complete reasoning text."""
        return "".join(part.text for part in self.content or ())


class ItemReference(RequestBody):
    """A reference to an item of a stored response. `type` may be omitted."""

    type: Literal["item_reference"] | None = Field("item_reference", description="Always `item_reference`.")
    id: str = Field(min_length=1, description="ID of an output item of a response that is stored.")


Item = InputMessage | FunctionCall | FunctionCallOutput | Reasoning
InputItem = (
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[Reasoning, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")]
)


def _item_tag(item: Any) -> str:
    is_reference = isinstance(item, dict) and "id" in item and "role" not in item
    return tag_of(item, "item_reference" if is_reference else "message")


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
_OUTPUT = TypeAdapter[list[Any]](Items)


class LocatedMessage(NamedTuple):
    """A chat message, and where it comes from in the request.

    `path` is the path of the item that became the message, or of the first such item if there are several. `contents`
    and `calls` are the paths of the message's content parts and tool calls.
    """

    message: ChatMessage
    path: str
    contents: Sequence[str] = ()
    calls: Sequence[str] = ()


class AssistantTurn:
    """Combines the items of one assistant turn (reasoning, messages and tool calls) into one chat message."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reasoning: list[str] = []
        self._contents: dict[str, str | list[ContentPart]] = {}
        self._calls: dict[str, ToolCall] = {}

    def includes(self, item: InputMessage | FunctionCall | Reasoning) -> bool:
        """Return whether the item belongs to this turn.

        A turn with tool calls includes all following assistant items. In a turn without tool calls, only a tool call
        can follow the first message.
        """
        return isinstance(item, FunctionCall) or bool(self._calls) or not self._contents

    def add(self, item: InputMessage | FunctionCall | Reasoning, path: str) -> None:
        """Add an item. Raises InvalidRequest if the turn has too many tool calls."""
        match item:
            case Reasoning():
                self._reasoning.append(item.text)
            case FunctionCall(call_id=id, name=name, arguments=arguments):
                if len(self._calls) == MAX_CALLS:
                    raise InvalidRequest(f"Too many tool calls in one turn (limit {MAX_CALLS})", param=path)
                self._calls[path] = ToolCall(id=id, function=CalledFunction(name=name, arguments=arguments))
            case InputMessage(content=content):
                self._contents[f"{path}.content"] = _content(content)

    def message(self, is_last: bool = False) -> LocatedMessage | None:
        """Return the turn as a chat message, or None if the turn has neither messages nor tool calls.

        The last turn of the input (`is_last`) becomes a chat message even if it has only reasoning.
        """
        reasoning = "".join(self._reasoning) or None
        if not (self._contents or self._calls or (reasoning and is_last)):
            return None
        contents = list(self._contents.values())
        content = contents[0] if len(contents) == 1 else [part for each in contents for part in _parts_of(each)]
        paths = [path for field, each in self._contents.items() for path in _paths(field, each)]
        calls = [*self._calls.values()] or None
        message = ChatMessage(role="assistant", content=content, tool_calls=calls, reasoning_content=reasoning)
        return LocatedMessage(message, self._path, paths, [*self._calls])


def with_stored_items(items: Sequence[InputItem], stored_item: Callable[[str], dict[str, Any] | None]) -> list[Item]:
    """Return the items, each reference replaced with the item that `stored_item` returns for its ID.

    Raises NotFound if it returns None, or InvalidRequest if there are too many references.
    """
    references = [index for index, item in enumerate(items) if isinstance(item, ItemReference)]
    if len(references) > _MAX_REFERENCES:
        param = f"input[{references[_MAX_REFERENCES]}]"
        raise InvalidRequest(f"Too many item references (limit {_MAX_REFERENCES})", param=param)
    found: list[Item] = []
    for index, item in enumerate(items):
        if not isinstance(item, ItemReference):
            found.append(item)
            continue
        stored = stored_item(item.id)
        if stored is None:
            message = f"Item with id '{item.id[:200]}' not found. Items are stored unless 'store' is false."
            raise NotFound(message, param=f"input[{index}].id")
        found += _OUTPUT.validate_python([stored])
    return found


def read_items(items: Sequence[Item]) -> list[LocatedMessage]:
    """Return the items of `input` as chat messages. Raises InvalidRequest if a turn has too many tool calls."""
    found: list[LocatedMessage | None] = []
    turn: AssistantTurn | None = None
    for index, item in enumerate(items):
        path = f"input[{index}]"
        if isinstance(item, FunctionCallOutput) or (isinstance(item, InputMessage) and item.role != "assistant"):
            found += [turn.message()] if turn else []
            found.append(_locate(item, path))
            turn = None
            continue
        if turn and not turn.includes(item):
            found.append(turn.message())
            turn = None
        turn = turn or AssistantTurn(path)
        turn.add(item, path)
    found += [turn.message(is_last=True)] if turn else []
    return [message for message in found if message]


def read_output(output: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """Return the output of a response as chat messages, for requests that continue the response."""
    return [one.message for one in read_items(_OUTPUT.validate_python(output))]


def _locate(item: InputMessage | FunctionCallOutput, path: str) -> LocatedMessage:
    if isinstance(item, FunctionCallOutput):
        message = ChatMessage(role="tool", content=_content(item.output), tool_call_id=item.call_id)
        return LocatedMessage(message, path, _paths(f"{path}.output", message.content))
    message = ChatMessage(role=item.role, content=_content(item.content))
    return LocatedMessage(message, path, _paths(f"{path}.content", message.content))


def _paths(field: str, content: str | list[ContentPart]) -> list[str]:
    return [field] if isinstance(content, str) else [f"{field}[{index}]" for index in range(len(content))]


def _content(content: str | list[InputPart]) -> str | list[ContentPart]:
    return content if isinstance(content, str) else [part.as_part() for part in content]


def _parts_of(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart(type="text", text=content)] if isinstance(content, str) else content


def with_request_paths(conversation: Sequence[LocatedMessage]) -> AbstractContextManager[None]:
    """Make errors raised in the block name fields by their paths in the request (`input[0]`, not `messages[0]`)."""
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
    """Return how many characters of an unvalidated request body are image URLs, which may contain whole files."""
    return sum(len(url) for part in unchecked_parts(fields, "input") if isinstance(url := part.get("image_url"), str))
