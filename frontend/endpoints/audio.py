"""POST /audio/transcriptions and /audio/translations: OpenAI's createTranscription and createTranslation."""

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal

import orjson
from flask import Blueprint, Response, request
from pydantic import Field, field_validator, model_validator

from frontend.access_log import log_fields, request_id
from frontend.connection import ClientWatch
from frontend.endpoints.body import FormBody, read_form
from frontend.errors import APIError, EngineFailure, InvalidRequest, PayloadTooLarge
from frontend.formats import sse
from frontend.formats.subtitles import to_srt, to_vtt
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.failures import translated
from frontend.triton.registry import Model

blueprint = Blueprint("audio", __name__)

# AHA's list.
LANGUAGES = (
    *("zh", "en", "yue", "ar", "de", "fr", "es", "pt", "id", "it", "ko", "ru", "th", "vi", "ja", "tr", "hi", "ms"),
    *("nl", "sv", "da", "fi", "pl", "cs", "fil", "fa", "el", "ro", "hu", "mk"),
)
_HEARTBEAT_SECONDS = 1.0

# A long file takes long. The deadline of a request counts between two segments here.
_LONGEST_SECONDS = 86_400.0


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


@blueprint.post("/audio/transcriptions")
def create_transcription() -> Response:
    """Answer what is said in the uploaded file, in its language."""
    form = read_form(TranscriptionRequest)
    transcription = _start(form)
    if form.stream:
        return Response(transcription.stream(), headers=sse.HEADERS, content_type=sse.CONTENT_TYPE)
    return transcription.answer(form.response_format, "word" in form.timestamp_granularities)


@blueprint.post("/audio/translations")
def create_translation() -> Response:
    """Answer what is said in the uploaded file, in English."""
    form = read_form(TranslationRequest)
    return _start(form).answer(form.response_format, words=False)


def _start(form: TranslationRequest) -> "Transcription":
    """Send the file to the model and wait for the first segment, so that a failure before it keeps its status."""
    model = services().registry.require(form.model, "transcription")
    log_fields()["model"] = model.id
    call = _send(model, form.options())
    return Transcription(call, str(form.options()["task"]))


def _send(model: Model, options: dict[str, Any]) -> Call:
    """Begin; the file is not held in memory any longer than that takes."""
    inputs = {"audio": _read_file(), "options": orjson.dumps(options)}
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=_LONGEST_SECONDS)


def _read_file() -> bytes:
    upload = request.files.get("file")
    if upload is None:
        raise InvalidRequest("Audio file is required", param="file", code="missing_file")
    limit = services().settings.max_upload_bytes
    content = upload.stream.read(limit + 1)
    upload.close()
    if len(content) > limit:
        raise PayloadTooLarge(f"The upload is over the limit of {limit} bytes", param="file")
    if not content:
        raise InvalidRequest("The audio file is empty", param="file", code="empty_file")
    return content


class Transcription:
    """One answer: the model's segments as OpenAI's objects. Raises APIError."""

    def __init__(self, call: Call, task: str):
        self._call, self._task = call, task
        self._watch = ClientWatch(request.environ, call.cancel)
        self._log_fields = log_fields()
        self._language, self._duration = "", 0.0
        self._patience = services().settings.request_timeout
        try:
            self._first = self._wait(self._patience)
        except BaseException:
            self.close()
            raise

    def answer(self, form: str, words: bool) -> Response:
        """Return the whole in the form asked for."""
        try:
            segments = [segment for part in self._segments() if part for segment in part]
        finally:
            self.close()
        text = "".join(segment["text"] for segment in segments).strip()
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
            body = {"task": self._task, "language": self._language, "duration": self._duration} | body
            body |= {"segments": segments} | ({"words": spoken} if words else {})
        return Response(orjson.dumps(body | {"usage": self._usage()}), content_type="application/json")

    def stream(self) -> Iterator[bytes]:
        """Yield OpenAI's transcript events; a failure on the way is an event too."""
        text = ""
        try:
            for segments in self._segments(heartbeat=True):
                if segments is None:
                    yield sse.HEARTBEAT
                    continue
                for segment in segments:
                    delta = segment["text"] if text else segment["text"].lstrip()
                    text += delta
                    yield sse.encode_event({"type": "transcript.text.delta", "delta": delta})
            yield sse.encode_event({"type": "transcript.text.done", "text": text.strip(), "usage": self._usage()})
        except APIError as error:
            self._log_fields |= {"status": error.status, "error": f"{error.code}: {error}"}
            yield sse.encode_event(error.body())
        finally:
            self.close()

    def close(self) -> None:
        """Stop whatever is still going on."""
        self._watch.close()
        self._call.cancel()

    def _segments(self, heartbeat: bool = False) -> Iterator[list[dict[str, Any]] | None]:
        """Yield the segments of each response to the last, which has the duration; None for each second without one
        if asked."""
        response = self._first
        while response is not None:
            yield orjson.loads(response["segments"])
            if "duration" in response:
                self._language, self._duration = response["language"], round(response["duration"], 3)
                return
            response = yield from self._next(heartbeat)
        raise EngineFailure("The model ended its answer without its end")

    def _next(self, heartbeat: bool) -> Generator[None, None, dict[str, Any] | None]:
        """Return the next response. Raises DeadlineExceeded if it does not come in the time of a request."""
        deadline = time.monotonic() + self._patience
        while heartbeat and deadline - time.monotonic() > _HEARTBEAT_SECONDS:
            try:
                return self._call.next(_HEARTBEAT_SECONDS)
            except TimeoutError:
                yield None
        return self._wait(max(deadline - time.monotonic(), 0))

    def _wait(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self._call.next(seconds)
        except TimeoutError:
            raise translated("DEADLINE_EXCEEDED", "") from None

    def _usage(self) -> dict[str, Any]:
        self._log_fields["audio_seconds"] = self._duration
        return {"type": "duration", "seconds": round(self._duration)}
