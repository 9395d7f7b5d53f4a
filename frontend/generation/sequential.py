"""All images, or all audio files, of a conversation, one after the other, as the responses of a chat model."""

import abc
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from contract.options import TranscriptionOptions
from contract.tensors import OCR
from frontend.generation.messages import Media, Message, find_media
from frontend.http.respond import Closable
from frontend.inference.response_stream import ResponseStream, start_call
from frontend.inference.transcription import Transcription
from frontend.media.sources import read_media
from frontend.services import require_model, services
from frontend.triton.registry import Model

Work = TypeVar("Work", bound=Closable)


class MediaText(NamedTuple):
    """Some text, how many tokens it counts as, and what else its response says."""

    text: str
    tokens: int
    more: dict[str, Any]


class SequentialMedia(abc.ABC, Generic[Work]):
    """Opens the first file at once, and each other one when the one before it has been read. Raises APIError."""

    kind: str
    """Which files of the messages: image or audio. What else those say is not looked at."""

    between: str
    """What stands between the texts of two files."""

    def __init__(self, model: Model, messages: Iterable[Message]):
        self._model = model
        first, *self._more = find_media(messages, self.kind)
        self._current = self.open(first)

    @abc.abstractmethod
    def open(self, media: Media) -> Work:
        """Begin with a file."""

    @abc.abstractmethod
    def texts(self, work: Work, number: int, heartbeat: bool) -> Iterator[MediaText | None]:
        """Yield the text of file `number`; None for each second without any if asked."""

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]:
        """Yield the text as it is read; the last response has the number of its tokens."""
        tokens, number, between = 0, 0, ""
        try:
            while True:
                begun = False
                for piece in self.texts(self._current, number, heartbeat):
                    if piece is None:
                        yield None
                        continue
                    tokens += piece.tokens
                    text = piece.text if begun or not piece.text else between + piece.text.lstrip()
                    begun = begun or bool(text)
                    yield {"text_output": text} | piece.more
                if not self._more:
                    break
                between = self.between if begun else between
                self._current = self.open(self._more.pop(0))
                number += 1
            yield {"text_output": "", "finish_reason": "stop", "num_input_tokens": 0, "num_output_tokens": tokens}
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        self._current.close()


class AudioTranscript(SequentialMedia[Transcription]):
    """The text of all audio in a conversation: AHA's speech recognition."""

    kind, between = "audio", "\n"

    def open(self, media: Media) -> Transcription:
        return _transcribe(self._model, media)

    def texts(self, work: Transcription, number: int, heartbeat: bool) -> Iterator[MediaText | None]:
        for segments in work.segments(heartbeat):
            if segments is None:
                yield None
            for segment in segments or ():
                yield MediaText(segment["text"], len(segment["tokens"]), {})


class ImageText(SequentialMedia[ResponseStream]):
    """The text in all images of a conversation: AHA's OCR. Its characters count as tokens.

    `with_boxes`: messages also have the field `boxes`, where in the images the text is.
    """

    kind, between = "image", "\n\n"

    def __init__(self, model: Model, messages: Iterable[Message], with_boxes: bool):
        self._with_boxes = with_boxes
        super().__init__(model, messages)

    def open(self, media: Media) -> ResponseStream:
        settings = services().settings
        inputs = {"image": read_media(media.url, media.param, settings)}
        call = start_call(self._model, inputs, timeout=settings.request_timeout)
        return ResponseStream(call, OCR.last_output, names={"image": media.param})

    def texts(self, work: ResponseStream, number: int, heartbeat: bool) -> Iterator[MediaText | None]:
        for response in work.responses(heartbeat):
            if response is None:
                yield None
                continue
            boxes = [{"image": number} | box for box in orjson.loads(response["boxes"])]
            fields = {"message_fields": {"boxes": boxes}} if self._with_boxes else {}
            yield MediaText(response["text_output"], response.get("num_output_tokens", 0), fields)


def transcribe(audio: Media) -> str:
    """Return what is said in the audio, by the default model for that. Raises APIError."""
    return _transcribe(require_model(None, "transcription"), audio).text()


def _transcribe(model: Model, audio: Media) -> Transcription:
    settings = services().settings
    return Transcription(
        model, lambda: read_media(audio.url, audio.param, settings), TranscriptionOptions(), audio.param
    )
