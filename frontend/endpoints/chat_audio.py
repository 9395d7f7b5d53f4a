"""Audio in a conversation: a transcription model answers what it hears; a chat model reads it, if that is allowed."""

from collections.abc import Iterable, Iterator
from typing import Any

from frontend.endpoints.messages import ContentPart, Media, Message, find_media, media_of
from frontend.endpoints.transcriptions import TRANSCRIBE, Transcription, send_audio
from frontend.errors import InvalidRequest
from frontend.media import read_media
from frontend.services import services
from frontend.triton.registry import Model


class Heard:
    """The text of all audio in a conversation as the responses of a chat model: AHA's speech recognition.

    What else the messages say is not looked at: such a model takes no instructions. Raises APIError.
    """

    def __init__(self, model: Model, messages: Iterable[Message]):
        self._model = model
        first, *self._more = find_media(messages, "audio")
        self._current = _listen(model, first)

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]:
        """Yield the text as it is heard; the last response has the number of its tokens."""
        tokens, between = 0, ""
        try:
            while True:
                starts = True
                for segments in self._current.segments(heartbeat):
                    if segments is None:
                        yield None
                    for segment in segments or ():
                        tokens += len(segment["tokens"])
                        text = segment["text"]
                        yield {"text_output": between + text.lstrip() if starts else text}
                        starts = False
                if not self._more:
                    break
                self._current, between = _listen(self._model, self._more.pop(0)), "\n"
            yield {"text_output": "", "finish_reason": "stop", "num_input_tokens": 0, "num_output_tokens": tokens}
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening."""
        self._current.close()


def text_messages(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Return a conversation for a model that reads text alone.

    The parts of a message are joined by line breaks; a developer's message is a system message, which is what chat
    templates know. Audio is transcribed if the operator has switched that on. Raises InvalidRequest naming a part that
    cannot be read.
    """
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": _join_text(message.content, f"messages[{number}].content"),
        }
        for number, message in enumerate(messages)
    ]


def _join_text(content: str | list[ContentPart], path: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_read(part, f"{path}[{number}]") for number, part in enumerate(content))


def _read(part: ContentPart, path: str) -> str:
    if part.type == "text":
        return part.text or ""
    if part.kind == "audio" and services().settings.transcribe_audio:
        return _listen(services().registry.require(None, "transcription"), media_of(part, path)).text()
    raise InvalidRequest(f"This model reads text alone, not {part.type}", param=path, code="unsupported_content")


def _listen(model: Model, audio: Media) -> Transcription:
    settings, param = services().settings, audio.param
    call = send_audio(model, lambda: read_media(audio.url, audio.param, settings), TRANSCRIBE)
    return Transcription(call, param=param)
