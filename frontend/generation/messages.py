"""Messages with text, audio and images in them, as chat takes them and AHA's speech does."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, model_validator

from frontend.errors import InvalidRequest
from frontend.http.body import RequestBody

# Each may be fetched from somewhere, and keeps a model busy.
_MAX_FILES = 16


class MediaUrl(RequestBody):
    """Where something is: see frontend/media.py."""

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
        wanted = {"image": "image_url", "audio": "audio_url"}.get(self.type, self.type)
        if getattr(self, wanted) is None:
            raise ValueError(f"a part of type {self.type} needs '{wanted}'")
        return self

    @property
    def kind(self) -> str:
        """What it is: text, image or audio."""
        if self.type == "refusal":
            return "text"
        return self.type.removeprefix("input_").removesuffix("_url")


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[ContentPart], Field(min_length=1), Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]


class Message(RequestBody):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content
    name: str | None = None


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
