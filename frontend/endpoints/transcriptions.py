"""POST /audio/transcriptions and /audio/translations: OpenAI's createTranscription and createTranslation."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import orjson
from flask import Blueprint, Response
from pydantic import Field, field_validator, model_validator

from frontend.access_log import log_fields, request_id
from frontend.endpoints.answer import LONGEST_SECONDS, Answer, events_of
from frontend.endpoints.body import FileField, FormBody, read_form, read_upload
from frontend.errors import InvalidRequest
from frontend.formats import sse
from frontend.formats.subtitles import to_srt, to_vtt
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.registry import Model

blueprint = Blueprint("transcriptions", __name__)

# AHA's list.
LANGUAGES = (
    *("zh", "en", "yue", "ar", "de", "fr", "es", "pt", "id", "it", "ko", "ru", "th", "vi", "ja", "tr", "hi", "ms"),
    *("nl", "sv", "da", "fi", "pl", "cs", "fil", "fa", "el", "ro", "hu", "mk"),
)
_FILE = FileField("file", "Audio file")


class TranslationRequest(FormBody):
    """The fields of createTranslation."""

    model: str | None = None
    prompt: str | None = Field(None, max_length=10_000)
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: float = Field(0.0, ge=0, le=1)

    def options(self) -> dict[str, Any]:
        """Return what the backend is to do."""
        return {"task": "translate", "prompt": self.prompt, "temperature": self.temperature}


class TranscriptionRequest(TranslationRequest):
    """The fields of createTranscription; `vad_filter` (leave silence out, on unless said) as speaches has it."""

    language: str | None = None
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = ("segment",)
    stream: bool = False
    vad_filter: bool = True

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str | None) -> str | None:
        code = (language or "").lower()
        if code and code not in LANGUAGES:
            raise ValueError(f"'{language}' is not one of {', '.join(sorted(LANGUAGES))}")
        return code or None

    @model_validator(mode="after")
    def _check_words(self) -> "TranscriptionRequest":
        if "word" in self.timestamp_granularities and self.response_format != "verbose_json":
            raise InvalidRequest(
                "timestamp_granularities with 'word' needs response_format verbose_json",
                param="timestamp_granularities",
            )
        if self.stream and self.response_format not in ("json", "text"):
            raise InvalidRequest("A stream has response_format json or text", param="response_format")
        return self

    def options(self) -> dict[str, Any]:
        """Return what the backend is to do."""
        return super().options() | {
            "task": "transcribe",
            "language": self.language,
            "word_timestamps": "word" in self.timestamp_granularities,
            "vad": self.vad_filter,
        }


TRANSCRIBE = TranscriptionRequest().options()
"""What is done where a request cannot say more."""


@blueprint.post("/audio/transcriptions")
def create_transcription() -> Response:
    """Answer what is said in the uploaded file, in its language."""
    form = read_form(TranscriptionRequest, _FILE)
    transcription = _start(form)
    if form.stream:
        return Response(transcription.stream(), headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
    return transcription.answer(form.response_format, "word" in form.timestamp_granularities)


@blueprint.post("/audio/translations")
def create_translation() -> Response:
    """Answer what is said in the uploaded file, in English."""
    form = read_form(TranslationRequest, _FILE)
    return _start(form).answer(form.response_format, words=False)


def _start(form: TranslationRequest) -> "Transcription":
    model = services().registry.require(form.model, "transcription")
    return Transcription(send_audio(model, lambda: read_upload(_FILE), form.options()), str(form.options()["task"]))


def send_audio(model: Model, read: Callable[[], bytes], options: Mapping[str, Any]) -> Call:
    """Send what `read` returns, an encoded file, to the model. It is not held in memory any longer than that takes."""
    log_fields()["model"] = model.id
    inputs = {"audio": read(), "options": orjson.dumps(options)}
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=LONGEST_SECONDS)


class Transcription:
    """What a model hears, as OpenAI's objects; `param` is where the request has the file.

    Waits for the first segment. Raises APIError.
    """

    def __init__(self, call: Call, task: str = "transcribe", param: str = "file"):
        self._log_fields, self._task = log_fields(), task
        self._answer = Answer(call, "duration", services().settings.request_timeout, {"file": param})
        self.language, self.duration = "", 0.0

    def segments(self, heartbeat: bool = False) -> Iterator[list[dict[str, Any]] | None]:
        """Yield the segments of each response, and then know language and duration; None for each second without one
        if asked."""
        for response in self._answer.responses(heartbeat):
            if response is None:
                yield None
                continue
            if "duration" in response:
                self.language, self.duration = response["language"], round(response["duration"], 3)
                self._log_fields["audio_seconds"] = self.duration
            yield orjson.loads(response["segments"])

    def close(self) -> None:
        """Stop listening."""
        self._answer.close()

    def text(self) -> str:
        """Return all that is said."""
        return _join(segment for part in self.segments() if part for segment in part)

    def answer(self, form: str, words: bool) -> Response:
        """Return the whole in the form asked for."""
        segments = [segment for part in self.segments() if part for segment in part]
        text = _join(segments)
        plain: dict[str, Callable[[], str]] = {
            "text": lambda: f"{text}\n",
            "srt": lambda: to_srt(segments),
            "vtt": lambda: to_vtt(segments),
        }
        if form in plain:
            kind = "text/vtt" if form == "vtt" else "text/plain"
            return Response(plain[form](), content_type=f"{kind}; charset=utf-8")
        body: dict[str, Any] = {"text": text}
        if form == "verbose_json":
            spoken = [word for segment in segments for word in segment.pop("words", [])]
            body = {"task": self._task, "language": self.language, "duration": self.duration} | body
            body |= {"segments": segments} | ({"words": spoken} if words else {})
        return Response(orjson.dumps(body | {"usage": self._usage()}), content_type="application/json")

    def stream(self) -> Iterator[bytes]:
        """Yield OpenAI's transcript events; a failure on the way is an event too."""
        return events_of(self._events(), self, self._log_fields)

    def _events(self) -> Iterator[bytes]:
        text = ""
        for segments in self.segments(heartbeat=True):
            if segments is None:
                yield sse.HEARTBEAT
                continue
            for segment in segments:
                delta = segment["text"] if text else segment["text"].lstrip()
                text += delta
                yield sse.encode_event({"type": "transcript.text.delta", "delta": delta})
        yield sse.encode_event({"type": "transcript.text.done", "text": text.strip(), "usage": self._usage()})

    def _usage(self) -> dict[str, Any]:
        return {"type": "duration", "seconds": round(self.duration)}


def _join(segments: Iterable[Mapping[str, Any]]) -> str:
    return "".join(segment["text"] for segment in segments).strip()
