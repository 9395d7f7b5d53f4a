"""Reads all images or all audio files of a conversation in order, and returns their text as chat model responses."""

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
from frontend.triton.model import Model

Reader = TypeVar("Reader", bound=Closable)


class MediaText(NamedTuple):
    """A part of a file's text, its number of tokens, and additional fields for the response that has this part.

    An OCR model reports the token count of a whole file with the file's last part, whose text is empty. The
    file's other parts have 0 tokens.
    """

    text: str
    tokens: int
    fields: dict[str, Any]


class SequentialMedia(abc.ABC, Generic[Reader]):
    """The text of the media in a conversation, read one file after another.

    The constructor starts reading the first file, and raises APIError if that fails. `responses` yields the text of the
    first file, then reads the other files. `whole` is whether the HTTP response begins after the last text.
    """

    kind: str
    """The kind of media to read: image or audio. Everything else in the messages is ignored."""

    separator: str
    """The separator between the texts of two files."""

    def __init__(self, model: Model, messages: Iterable[Message], whole: bool):
        self._model, self._whole = model, whole
        first, *self._pending = find_media(messages, self.kind)
        self._current = self.start_reading(first)

    @abc.abstractmethod
    def start_reading(self, media: Media) -> Reader:
        """Start reading a file, and wait for the model's first response. Raises APIError."""

    @abc.abstractmethod
    def read_texts(self, reader: Reader, index: int, heartbeat: bool) -> Iterator[MediaText | None]:
        """Yield the parts of the text of the file with this index.

        With `heartbeat`, yield None for each second without text.
        """

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]:
        """Yield responses like those of a chat model: the text as it is read, then the token counts.

        With `heartbeat`, yield None for each second without text. Raises APIError.
        """
        tokens, index, separator = 0, 0, ""
        try:
            while True:
                started = False
                for piece in self.read_texts(self._current, index, heartbeat):
                    if piece is None:
                        yield None
                        continue
                    tokens += piece.tokens
                    text = piece.text if started or not piece.text else separator + piece.text.lstrip()
                    started = started or bool(text)
                    yield {"text_output": text} | piece.fields
                if not self._pending:
                    break
                separator = self.separator if started else separator
                self._current = self.start_reading(self._pending.pop(0))
                index += 1
            yield {"text_output": "", "finish_reason": "stop", "num_input_tokens": 0, "num_output_tokens": tokens}
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        self._current.close()


class AudioTranscript(SequentialMedia[Transcription]):
    """The transcript of all audio in a conversation. Audio in chat follows AHA's API (see docs/compatibility.md)."""

    kind, separator = "audio", "\n"

    def start_reading(self, media: Media) -> Transcription:
        return _transcribe(self._model, media, self._whole)

    def read_texts(self, reader: Transcription, index: int, heartbeat: bool) -> Iterator[MediaText | None]:
        for segments in reader.segments(heartbeat):
            if segments is None:
                yield None
            for segment in segments or ():
                yield MediaText(segment["text"], len(segment["tokens"]), {})


class ImageText(SequentialMedia[ResponseStream]):
    """The text in all images of a conversation. Chat requests for OCR follow AHA's API (docs/compatibility.md).

    Each character counts as a token. With `with_boxes`, the message also has the field `boxes`: the positions of the
    text in the images.
    """

    kind, separator = "image", "\n\n"

    def __init__(self, model: Model, messages: Iterable[Message], whole: bool, with_boxes: bool):
        self._with_boxes = with_boxes
        super().__init__(model, messages, whole)

    def start_reading(self, media: Media) -> ResponseStream:
        settings = services().settings
        inputs = {"image": read_media(media.url, media.param, settings)}
        call = start_call(self._model, inputs, timeout=settings.request_timeout, whole=self._whole)
        return ResponseStream(call, OCR.last_output, field_names={"image": media.param}, whole=self._whole)

    def read_texts(self, reader: ResponseStream, index: int, heartbeat: bool) -> Iterator[MediaText | None]:
        for response in reader.responses(heartbeat):
            if response is None:
                yield None
                continue
            boxes = [{"image": index} | box for box in orjson.loads(response["boxes"])]
            fields = {"message_fields": {"boxes": boxes}} if self._with_boxes else {}
            yield MediaText(response["text_output"], response.get("num_output_tokens", 0), fields)


def transcribe(audio: Media) -> str:
    """Return the transcript that the default transcription model makes of the audio. Raises APIError."""
    return _transcribe(require_model(None, "transcription"), audio, whole=True).text()


def _transcribe(model: Model, audio: Media, whole: bool) -> Transcription:
    settings = services().settings
    return Transcription(
        model, lambda: read_media(audio.url, audio.param, settings), TranscriptionOptions(), whole, audio.param
    )
