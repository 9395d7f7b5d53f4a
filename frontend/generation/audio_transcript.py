"""Audio in a conversation: a transcription model answers what it hears, or writes it down for another model."""

from collections.abc import Iterator

from frontend.generation.messages import Media
from frontend.generation.sequential import MediaText, SequentialMedia
from frontend.inference.transcription import Transcription, send_audio
from frontend.media.sources import read_media
from frontend.services import services
from frontend.triton.registry import Model

# A request with audio in its messages cannot say how to transcribe it.
_OPTIONS = {
    "task": "transcribe",
    "prompt": None,
    "temperature": 0.0,
    "language": None,
    "word_timestamps": False,
    "vad": True,
}


class AudioTranscript(SequentialMedia[Transcription]):
    """The text of all audio in a conversation: AHA's speech recognition."""

    kind, between = "audio", "\n"

    def open(self, media: Media) -> Transcription:
        return _listen(self._model, media)

    def texts(self, work: Transcription, number: int, heartbeat: bool) -> Iterator[MediaText | None]:
        for segments in work.segments(heartbeat):
            if segments is None:
                yield None
            for segment in segments or ():
                yield MediaText(segment["text"], len(segment["tokens"]), {})


def write_down(audio: Media) -> str:
    """Return what is said in the audio, by the default model for that. Raises APIError."""
    return _listen(services().registry.require(None, "transcription"), audio).text()


def _listen(model: Model, audio: Media) -> Transcription:
    settings, param = services().settings, audio.param
    call = send_audio(model, lambda: read_media(audio.url, audio.param, settings), _OPTIONS)
    return Transcription(call, param=param)
