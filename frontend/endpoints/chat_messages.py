"""A conversation as a chat model gets it: roles and texts, and the images if it sees any."""

from collections.abc import Iterable
from typing import Any

from frontend.endpoints.chat_audio import write_down
from frontend.endpoints.messages import ContentPart, Message, find_media, media_of
from frontend.errors import InvalidRequest
from frontend.media import read_media
from frontend.services import services


def model_messages(messages: Iterable[Message], sees: bool) -> list[dict[str, Any]]:
    """Return the messages for a model that reads text, and perhaps `sees` images.

    A message's parts are joined by line breaks; of one with images they stay apart, and an image is but its place. A
    developer's message is a system message, which is what chat templates know. Audio is transcribed if the operator has
    switched that on. Raises InvalidRequest naming a part that cannot be read.
    """
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": _content(message.content, f"messages[{number}].content", sees),
        }
        for number, message in enumerate(messages)
    ]


def read_images(messages: Iterable[Message]) -> list[bytes]:
    """Return the encoded images of all messages, in order. Raises APIError."""
    return [read_media(image.url, image.param, services().settings) for image in find_media(messages, "image")]


def _content(content: str | list[ContentPart], path: str, sees: bool) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{path}[{number}]", sees) for number, part in enumerate(content)]
    if any(part["type"] == "image" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: ContentPart, path: str, sees: bool) -> dict[str, str]:
    if part.type == "text":
        return {"type": "text", "text": part.text or ""}
    if part.kind == "image" and sees:
        return {"type": "image"}
    if part.kind == "audio" and services().settings.transcribe_audio:
        return {"type": "text", "text": write_down(media_of(part, path))}
    known = "text and images" if sees else "text"
    raise InvalidRequest(f"This model reads {known} alone, not {part.type}", param=path, code="unsupported_content")
