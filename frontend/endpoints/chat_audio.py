"""Audio in a conversation: a transcription model answers what it hears, or writes it down for another model."""

from collections.abc import Iterable, Iterator
from typing import Any

from frontend.endpoints.messages import Media, Message, find_media
from frontend.endpoints.transcriptions import TRANSCRIBE, Transcription, send_audio
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


def write_down(audio: Media) -> str:
    """Return what is said in the audio, by the default model for that. Raises APIError."""
    return _listen(services().registry.require(None, "transcription"), audio).text()


def _listen(model: Model, audio: Media) -> Transcription:
    settings, param = services().settings, audio.param
    call = send_audio(model, lambda: read_media(audio.url, audio.param, settings), TRANSCRIBE)
    return Transcription(call, param=param)
