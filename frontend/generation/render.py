"""A conversation as a chat model gets it: roles and texts, and the images if it sees any."""

from collections.abc import Iterable
from typing import Any

from frontend.errors import InvalidRequest, PayloadTooLarge
from frontend.generation.audio_transcript import write_down
from frontend.generation.messages import ContentPart, Message, find_media, media_of
from frontend.generation.tools import ChatMessage, call_fields
from frontend.media.sources import read_media
from frontend.services import services
from frontend.triton.registry import Model


def check_parts(messages: Iterable[Message], sees: bool) -> None:
    """Raise InvalidRequest naming a part that the model cannot take: it reads text, and perhaps `sees` images.

    Audio can be written down, if the operator has switched that on.
    """
    known = {"text"} | ({"image"} if sees else set()) | ({"audio"} if services().settings.transcribe_audio else set())
    for number, message in enumerate(messages):
        for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.kind not in known:
                what = "text and images" if sees else "text"
                raise InvalidRequest(
                    f"This model reads {what} alone, not {part.type}",
                    param=f"messages[{number}].content[{place}]",
                    code="unsupported_content",
                )


def read_images(messages: Iterable[Message]) -> list[bytes]:
    """Return the encoded images of all messages, in order. Together they have the limit of a file. Raises APIError."""
    settings, images = services().settings, list[bytes]()
    for image in find_media(messages, "image"):
        images.append(read_media(image.url, image.param, settings))
        if sum(map(len, images)) > settings.max_upload_bytes:
            raise PayloadTooLarge(
                f"The images are together over the limit of {settings.max_upload_bytes} bytes", param=image.param
            )
    return images


def model_messages(messages: Iterable[ChatMessage], model: Model) -> list[dict[str, Any]]:
    """Return messages as the model gets them: those that `check_parts` has let pass.

    A message's parts are joined by line breaks; of one with images they stay apart, and an image is but its place. A
    developer's message is a system message, which is what chat templates know. Audio is written down.
    """
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": _content(message.content, f"messages[{number}].content"),
        }
        | call_fields(message, model)
        for number, message in enumerate(messages)
    ]


def _content(content: str | list[ContentPart], path: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{path}[{number}]") for number, part in enumerate(content)]
    if any(part["type"] == "image" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: ContentPart, path: str) -> dict[str, str]:
    if part.kind == "image":
        return {"type": "image"}
    text = write_down(media_of(part, path)) if part.kind == "audio" else part.text or part.refusal or ""
    return {"type": "text", "text": text}
