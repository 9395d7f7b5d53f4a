"""Messages: their parts and tool calls, what makes a history valid, and how they look to a chat model."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar

import orjson
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from contract.model_text import CALL_ID_LENGTH, DEFAULT_TOOL_FORMAT
from frontend.errors import InvalidRequest
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond
from frontend.services import services
from frontend.triton.registry import Model

MAX_CALLS = 128
"""In one turn of the model."""

# Each may be fetched from somewhere, and keeps a model busy.
_MAX_FILES = 16


def require_field(part: Any, name: str) -> None:
    """Raise ValueError unless a part of some `type` has the field that this type needs."""
    if getattr(part, name) is None:
        raise ValueError(f"a part of type {part.type} needs '{name}'")


class MediaUrl(RequestBody):
    """Where something is: see frontend/media/."""

    url: str


class InputAudio(RequestBody):
    """OpenAI's way to send audio: base64. The file itself tells its format."""

    data: str


class ContentPart(RequestBody):
    """One part of a message's content. OpenAI's names of types, and AHA's (`image`, `audio`)."""

    type: Literal["text", "refusal", "image", "image_url", "audio", "audio_url", "input_audio"]
    text: str | None = None
    refusal: str | None = None
    image_url: MediaUrl | None = None
    audio_url: MediaUrl | None = None
    input_audio: InputAudio | None = None

    @model_validator(mode="after")
    def _has_content(self) -> "ContentPart":
        require_field(self, {"image": "image_url", "audio": "audio_url"}.get(self.type, self.type))
        return self

    @property
    def kind(self) -> str:
        """What it is: text, image or audio."""
        if self.type == "refusal":
            return "text"
        return self.type.removeprefix("input_").removesuffix("_url")


Part = TypeVar("Part")
Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Part], Field(min_length=1), Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]
"""A text, or a list of parts."""


class Message(RequestBody):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content[ContentPart]
    name: str | None = None


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


class Media(NamedTuple):
    """A URL in a request, and the field it stands in."""

    url: str
    param: str


def has_media(messages: Iterable[Message], kind: str) -> bool:
    """Tell whether there are images, or audio. Raises InvalidRequest where there are too many."""
    return bool(list(find_media(messages, kind)))


def find_media(messages: Iterable[Message], kind: str) -> Iterator[Media]:
    """Yield the images or the audio of all messages in order. Raises InvalidRequest where there is too much of it."""
    count = 0
    for number, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        for place, part in enumerate(message.content):
            if part.kind != kind:
                continue
            count += 1
            found = media_of(part, f"messages[{number}].content[{place}]")
            if count > _MAX_FILES:
                raise InvalidRequest(f"A request has {_MAX_FILES} files at most", param=found.param)
            yield found


def media_of(part: ContentPart, path: str) -> Media:
    """Return where the image or the audio of a part is; `path` is where the part is."""
    if part.type == "input_audio":
        assert part.input_audio is not None  # noqa: S101
        return Media(f"base64://{part.input_audio.data}", f"{path}.input_audio.data")
    url = getattr(part, f"{part.kind}_url").url
    return Media(url, f"{path}.{part.kind}_url.url")


def inline_media_size(fields: Any) -> int:
    """Return how many characters of a request, as parsed, are files inside of messages."""
    parts = list(unchecked_parts(fields, "messages"))
    places = [part[key] for part in parts for key in ("audio_url", "image_url", "input_audio") if key in part]
    values = [value for place in places if isinstance(place, dict) for value in place.values()]
    return sum(len(value) for value in values if isinstance(value, str))


def unchecked_parts(fields: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield the parts of what a request, as parsed, has in its list `name`, whatever else may be in it."""
    found = fields.get(name) if isinstance(fields, dict) else None
    for item in found if isinstance(found, list) else ():
        content = item.get("content") if isinstance(item, dict) else None
        yield from (part for part in content if isinstance(part, dict)) if isinstance(content, list) else ()


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
    if levels_beyond(parse_arguments(call.function.arguments), MAX_LEVELS):
        _reject(f"Arguments nested deeper than {MAX_LEVELS} levels", f"{path}.function.arguments")


def parse_arguments(written: str) -> dict[str, Any]:
    """Return a call's arguments. Those of a call that was cut off are no JSON, and clients send them back as well."""
    try:
        arguments = orjson.loads(written or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": written}


def _reject(message: str, param: str) -> NoReturn:
    raise InvalidRequest(message, param=param)


Conversation = Annotated[list[ChatMessage], Field(min_length=1), AfterValidator(checked_calls)]
"""The messages of a request."""


def check_parts(messages: Iterable[Message], accepts_images: bool) -> None:
    """Raise InvalidRequest naming a part that the model cannot take: it reads text, and perhaps `accepts_images`.

    Audio can be written down, if the operator has switched that on.
    """
    known = (
        {"text"}
        | ({"image"} if accepts_images else set())
        | ({"audio"} if services().settings.transcribe_audio else set())
    )
    for number, message in enumerate(messages):
        for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.kind not in known:
                what = "text and images" if accepts_images else "text"
                raise InvalidRequest(
                    f"This model reads {what} alone, not {part.type}",
                    param=f"messages[{number}].content[{place}]",
                    code="unsupported_content",
                )


def render_messages(
    messages: Iterable[ChatMessage], model: Model, transcripts: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return messages as the model gets them: those that `check_parts` has let pass.

    A message's parts are joined by line breaks; of one with images they stay apart, and an image is but its place. A
    developer's message is a system message, which is what chat templates know. Audio is its text in `transcripts`, by
    the field it stands in.
    """
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": _content(message.content, f"messages[{number}].content", transcripts),
        }
        | _call_fields(message, model)
        for number, message in enumerate(messages)
    ]


def _content(content: str | list[ContentPart], path: str, transcripts: Mapping[str, str]) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{path}[{number}]", transcripts) for number, part in enumerate(content)]
    if any(part["type"] == "image" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: ContentPart, path: str, transcripts: Mapping[str, str]) -> dict[str, str]:
    if part.kind == "image":
        return {"type": "image"}
    text = transcripts[media_of(part, path).param] if part.kind == "audio" else part.text or part.refusal or ""
    return {"type": "text", "text": text}


def _call_fields(message: ChatMessage, model: Model) -> dict[str, Any]:
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


def _call(call: ToolCall, model: Model) -> dict[str, Any]:
    arguments = parse_arguments(call.function.arguments)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": _id(call.id, model), "type": "function", "function": function}


def _id(id: str, model: Model) -> str:
    """Return the id of a call as the model's template takes it: another model may have made it."""
    length = CALL_ID_LENGTH.get(model.parameters.get("tool_format", DEFAULT_TOOL_FORMAT))
    if length is None or (len(id) == length and id.isalnum()):
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:length]
