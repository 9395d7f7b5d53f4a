"""Messages as chat models get them: roles, texts and calls. Media are resolved before (see routing.py)."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from contract.tool_formats import CALL_ID_LENGTH, DEFAULT
from frontend.errors import InvalidRequest
from frontend.generation.messages import ChatMessage, ContentPart, Message, ToolCall, media_of, parse_arguments
from frontend.services import services
from frontend.triton.registry import Model


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
    length = CALL_ID_LENGTH.get(model.parameters.get("tool_format", DEFAULT))
    if length is None or (len(id) == length and id.isalnum()):
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:length]
