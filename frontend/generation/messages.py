"""Defines the messages of a conversation, validates them, and renders them for a chat model."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar

import orjson
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from contract.model_text import CALL_ID_LENGTH, DEFAULT_TOOL_FORMAT
from frontend.errors import InvalidRequest
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond
from frontend.services import services
from frontend.triton.model import Model

MAX_CALLS = 128
"""Maximum number of tool calls in one assistant message."""

# Maximum number of images in a request, and also of audio files: each file may need a download, and takes model time.
_MAX_FILES = 16


def require_field(part: Any, name: str) -> None:
    """Raise ValueError if a content part lacks the field that its `type` requires."""
    if getattr(part, name) is None:
        raise ValueError(f"a part of type '{part.type}' requires '{name}'")


class MediaUrl(RequestBody):
    """The URL of an image or an audio file."""

    url: str = Field(
        description="A `data:`, `base64://` or `http(s)://` URL, or a `file://` URL if the operator allows its folder."
    )


class InputAudio(RequestBody):
    """An audio file, as in OpenAI's API."""

    data: str = Field(description="The audio file in base64. Its format is detected; `format` is ignored.")


class ContentPart(RequestBody):
    """One part of a message's content. Its `type` is one of OpenAI's types, or `image`, `audio` or `audio_url`."""

    type: Literal["text", "refusal", "image", "image_url", "audio", "audio_url", "input_audio"] = Field(
        description="Kind of the part. `image` is the same as `image_url`, and `audio` the same as `audio_url`."
    )
    text: str | None = Field(None, description="The text of a `text` part.")
    refusal: str | None = Field(None, description="The text of a `refusal` part.")
    image_url: MediaUrl | None = Field(None, description="The image of an `image` or `image_url` part.")
    audio_url: MediaUrl | None = Field(None, description="The audio file of an `audio` or `audio_url` part.")
    input_audio: InputAudio | None = Field(None, description="The audio file of an `input_audio` part.")

    @model_validator(mode="after")
    def _has_content(self) -> "ContentPart":
        require_field(self, {"image": "image_url", "audio": "audio_url"}.get(self.type, self.type))
        return self

    @property
    def kind(self) -> str:
        """The kind of content: text, image or audio."""
        if self.type == "refusal":
            return "text"
        return self.type.removeprefix("input_").removesuffix("_url")


Part = TypeVar("Part")
Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Part], Field(min_length=1), Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]
"""A string, or a list of content parts."""


class Message(RequestBody):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(
        description="Author of the message. `developer` is treated as `system`."
    )
    content: Content[ContentPart] = Field(
        description="A string, or a list of content parts. In chat, the content of an `assistant` or `tool` message "
        "may be null, omitted or empty."
    )
    name: str | None = Field(
        None, description="Name of the called function, in a `tool` message of a chat. Otherwise ignored."
    )


class CalledFunction(RequestBody):
    """The function of a tool call."""

    name: str = Field(description="Name of the function.")
    arguments: str = Field(description="The arguments, as JSON text.")


class ToolCall(RequestBody):
    """A tool call of an assistant message."""

    id: str = Field(description="ID of the call, unique in its message.")
    type: Literal["function"] = Field("function", description="Always `function`.")
    function: CalledFunction = Field(description="The function and its arguments.")


class ChatMessage(Message):
    """One message of a chat, with tool calls and reasoning."""

    tool_calls: list[ToolCall] | None = Field(
        None, max_length=MAX_CALLS, description="Tool calls of an `assistant` message."
    )
    tool_call_id: str | None = Field(
        None,
        description="Required in a `tool` message: the ID of the tool call whose result this message contains. The "
        "call must be in the preceding `assistant` message.",
    )
    reasoning_content: str | None = Field(
        None, description="Reasoning of an `assistant` message, passed to the chat template."
    )

    @model_validator(mode="before")
    @classmethod
    def _allow_no_content(cls, fields: Any) -> Any:
        """Accept missing, null or empty content in assistant and tool messages as an empty string."""
        if isinstance(fields, dict) and fields.get("role") in ("assistant", "tool"):
            return fields | {"content": fields.get("content") or ""}
        return fields


class Media(NamedTuple):
    """A media URL in a request, and the path of its field."""

    url: str
    param: str


def has_media(messages: Iterable[Message], kind: str) -> bool:
    """Return whether the messages contain media of this kind. Raises InvalidRequest if there are too many files."""
    return bool(list(find_media(messages, kind)))


def find_media(messages: Iterable[Message], kind: str) -> Iterator[Media]:
    """Yield all images or all audio files of the messages in order. Raises InvalidRequest if there are too many."""
    count = 0
    for index, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        for part_index, part in enumerate(message.content):
            if part.kind != kind:
                continue
            count += 1
            found = media_of(part, f"messages[{index}].content[{part_index}]")
            if count > _MAX_FILES:
                name = "images" if kind == "image" else "audio files"
                raise InvalidRequest(f"Too many {name} (limit {_MAX_FILES})", param=found.param)
            yield found


def media_of(part: ContentPart, path: str) -> Media:
    """Return the image or audio file of a part; `path` is the path of the part in the request."""
    if part.type == "input_audio":
        assert part.input_audio is not None  # noqa: S101
        return Media(f"base64://{part.input_audio.data}", f"{path}.input_audio.data")
    url = getattr(part, f"{part.kind}_url").url
    return Media(url, f"{path}.{part.kind}_url.url")


def inline_media_size(fields: Any) -> int:
    """Return how many characters an unvalidated request body has in its media objects: base64 files and URLs."""
    parts = list(unchecked_parts(fields, "messages"))
    sources = [part[key] for part in parts for key in ("audio_url", "image_url", "input_audio") if key in part]
    values = [value for source in sources if isinstance(source, dict) for value in source.values()]
    return sum(len(value) for value in values if isinstance(value, str))


def unchecked_parts(fields: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield the content parts in the list `name` of an unvalidated request body; malformed entries are skipped."""
    found = fields.get(name) if isinstance(fields, dict) else None
    for item in found if isinstance(found, list) else ():
        content = item.get("content") if isinstance(item, dict) else None
        yield from (part for part in content if isinstance(part, dict)) if isinstance(content, list) else ()


def checked_calls(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Return the messages unchanged. Raises InvalidRequest if a tool call is invalid, or a tool result has no call."""
    callable_ids: set[str] = set()
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role == "tool":
            _check_tool_result(message, path, callable_ids)
            continue
        callable_ids = set()
        if message.tool_calls and message.role != "assistant":
            _reject("'tool_calls' is only supported in assistant messages", f"{path}.tool_calls")
        for call_index, call in enumerate(message.tool_calls or ()):
            _check_call(call, f"{path}.tool_calls[{call_index}]", callable_ids)
            callable_ids.add(call.id)
    return messages


def _check_tool_result(message: ChatMessage, path: str, callable_ids: Iterable[str]) -> None:
    if message.tool_call_id is None:
        raise InvalidRequest(
            f"Invalid request: missing required parameter '{path}.tool_call_id'",
            param=f"{path}.tool_call_id",
            code="missing_parameter",
        )
    if message.tool_call_id not in callable_ids:
        _reject("'tool_call_id' does not match a preceding tool call", f"{path}.tool_call_id")
    for index, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.kind != "text":
            _reject("A tool result must contain only text", f"{path}.content[{index}]")


def _check_call(call: ToolCall, path: str, others: Iterable[str]) -> None:
    if call.id in others:
        _reject(f"Duplicate tool call ID '{call.id}'", f"{path}.id")
    if levels_beyond(parse_arguments(call.function.arguments), MAX_LEVELS):
        _reject(f"'arguments' is nested deeper than {MAX_LEVELS} levels", f"{path}.function.arguments")


def parse_arguments(written: str) -> dict[str, Any]:
    """Return the arguments of a call as an object.

    Empty text means no arguments. Other text that is not a JSON object becomes the value of a single argument
    named `arguments`. Such text is accepted because clients send back truncated calls.
    """
    try:
        arguments = orjson.loads(written or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": written}


def _reject(message: str, param: str) -> NoReturn:
    raise InvalidRequest(message, param=param)


Conversation = Annotated[list[ChatMessage], Field(min_length=1), AfterValidator(checked_calls)]
"""The messages of a request, with valid tool calls and results."""


def check_parts(messages: Iterable[Message], accepted: Collection[str]) -> None:
    """Raise InvalidRequest naming the first content part that the model does not support.

    Text is always supported, `accepted` types of files too, and audio if the setting `transcribe_audio` is on.
    """
    supported = {"text", *accepted} | ({"audio"} if services().settings.transcribe_audio else set())
    for index, message in enumerate(messages):
        for part_index, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.kind not in supported:
                raise InvalidRequest(
                    f"This model does not support {'images' if part.kind == 'image' else 'audio'}",
                    param=f"messages[{index}].content[{part_index}]",
                    code="unsupported_content",
                )


def render_messages(
    messages: Iterable[ChatMessage], model: Model, transcripts: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the messages as chat models receive them. The messages must have passed `check_parts`.

    The text parts of a message without files are joined by line breaks. A message with files keeps its parts, with
    `{"type": "image"}` in place of each image and `{"type": "audio"}` in place of audio. A developer message becomes a
    system message, because chat templates do not support `developer`. Audio with a transcript is replaced by that; the
    keys of `transcripts` are the paths of the audio fields. A user's message with files and without text gets the
    model's parameter `default_prompt` as its text.
    """
    default = model.parameters.get("default_prompt", "")
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": _content(
                message.content, f"messages[{index}].content", transcripts, default if message.role == "user" else ""
            ),
        }
        | _call_fields(message, model)
        for index, message in enumerate(messages)
    ]


def _content(
    content: str | list[ContentPart], path: str, transcripts: Mapping[str, str], default: str
) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{path}[{index}]", transcripts) for index, part in enumerate(content)]
    if any(part["type"] != "text" for part in parts):
        has_text = any(part.get("text", "").strip() for part in parts)
        return parts if has_text or not default else [*parts, {"type": "text", "text": default}]
    return "\n".join(part["text"] for part in parts)


def _part(part: ContentPart, path: str, transcripts: Mapping[str, str]) -> dict[str, str]:
    if part.kind == "text":
        return {"type": "text", "text": part.text or part.refusal or ""}
    transcript = transcripts.get(media_of(part, path).param)
    return {"type": part.kind} if transcript is None else {"type": "text", "text": transcript}


def _call_fields(message: ChatMessage, model: Model) -> dict[str, Any]:
    """Return a message's template fields for tool calls, tool results and reasoning.

    The arguments of a tool call are an object, as templates expect. If a message has tool calls but no text, its
    content is null, because some templates test for null.
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
    """Return the ID of a tool call, or a hash of the ID if the model's template would reject the ID.

    Some templates accept only alphanumeric IDs of a fixed length, but another model may have generated the ID.
    """
    length = CALL_ID_LENGTH.get(model.parameters.get("tool_format", DEFAULT_TOOL_FORMAT))
    if length is None or (len(id) == length and id.isalnum()):
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:length]
