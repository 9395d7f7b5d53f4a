"""All images, or all audio files, of a conversation, one after the other, as the responses of a chat model."""

import abc
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from frontend.generation.messages import Media, Message, find_media
from frontend.inference.response_stream import Closable
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
