"""POST /audio/transcriptions and /audio/translations (OpenAI's createTranscription and createTranslation)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson
from flask import Blueprint, Response
from pydantic import Field, field_validator, model_validator

from contract.languages import LANGUAGES, language_code
from contract.options import TranscriptionOptions
from frontend.errors import InvalidRequest
from frontend.http.multipart import FileField, FormBody, read_form, read_upload
from frontend.http.respond import StreamedResponse, encode_event, json_response
from frontend.inference.transcription import Transcription, join_text
from frontend.services import require_model

blueprint = Blueprint("transcriptions", __name__)

_FILE = FileField("file", "Audio file")


class TranslationRequest(FormBody):
    """The form fields of createTranslation, except the file."""

    model: str | None = Field(
        None, description="ID, name or alias of the model. The default transcription model if omitted."
    )
    prompt: str | None = Field(
        None,
        max_length=10_000,
        description="Text that the model treats as preceding the audio. The prompt guides style and spelling.",
    )
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = Field(
        "json", description="`verbose_json` adds the language, the duration, and segments with their times."
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Sampling temperature. With 0, the model decodes without sampling, and poor results, such as text "
        "that repeats itself, are decoded again at higher temperatures.",
    )

    def options(self) -> TranscriptionOptions:
        """Return the options for the backend."""
        return TranscriptionOptions(task="translate", prompt=self.prompt, temperature=self.temperature)


class TranscriptionRequest(TranslationRequest):
    """The form fields of createTranscription, except the file; plus `vad_filter`, which the speaches server defines."""

    language: str | None = Field(
        None,
        description="Language of the speech: an ISO 639 code (`de`), a locale (`pt-BR`) or an English name (`french`) "
        "of one of the languages that Whisper knows. Detected if omitted, empty or `auto`.",
    )
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = Field(
        ("segment",), description="`word` adds the times of words, and requires `verbose_json`."
    )
    stream: bool = Field(
        False,
        description="Stream OpenAI's transcript events: a delta per segment, then the complete text. Requires the "
        "response format `json` or `text`.",
    )
    vad_filter: bool = Field(True, description="Skip audio without speech (voice activity detection).")

    @field_validator("timestamp_granularities", mode="before")
    @classmethod
    def _accept_text(cls, value: Any) -> Any:
        """Accept a field without brackets: one value, or a JSON array."""
        if not isinstance(value, str):
            return value
        try:
            return orjson.loads(value) if value.startswith("[") else [value]
        except orjson.JSONDecodeError:
            return [value]

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str | None) -> str | None:
        if not language or language.lower() == "auto":
            return None
        code = language_code(language)
        if code is None:
            raise ValueError(f"must be one of {', '.join(sorted(LANGUAGES))}, or the English name of a language")
        return code

    @model_validator(mode="after")
    def _check_words(self) -> "TranscriptionRequest":
        if "word" in self.timestamp_granularities and self.response_format != "verbose_json":
            raise InvalidRequest(
                "'timestamp_granularities' with 'word' requires 'response_format': verbose_json",
                param="timestamp_granularities",
            )
        if self.stream and self.response_format not in ("json", "text"):
            raise InvalidRequest("'stream': true requires 'response_format': json or text", param="response_format")
        return self

    def options(self) -> TranscriptionOptions:
        """Return the options for the backend."""
        return replace(
            super().options(),
            task="transcribe",
            language=self.language,
            word_timestamps="word" in self.timestamp_granularities,
            vad=self.vad_filter,
        )


@blueprint.post("/audio/transcriptions")
def create_transcription() -> Response:
    """Return the speech in the uploaded file as text in the spoken language."""
    form = read_form(TranscriptionRequest, _FILE)
    transcript = _start(form, whole=not form.stream)
    if form.stream:
        return transcript.event_stream()
    return transcript.respond(form.response_format, "word" in form.timestamp_granularities)


@blueprint.post("/audio/translations")
def create_translation() -> Response:
    """Return the speech in the uploaded file as English text."""
    form = read_form(TranslationRequest, _FILE)
    return _start(form, whole=True).respond(form.response_format, words=False)


def _start(form: TranslationRequest, whole: bool) -> "Transcript":
    model, options = require_model(form.model, "transcription"), form.options()
    return Transcript(Transcription(model, lambda: read_upload(_FILE), options, whole), options.task)


class Transcript(StreamedResponse):
    """The response to a transcription or translation request, in OpenAI's formats."""

    def __init__(self, transcription: Transcription, task: str):
        super().__init__(transcription)
        self._transcription, self._task = transcription, task

    def respond(self, response_format: str, words: bool) -> Response:
        """Return the complete transcript. `words` adds the times of words to `verbose_json`. Raises APIError."""
        segments = [segment for part in self._transcription.segments() if part for segment in part]
        text = join_text(segments)
        plain: dict[str, Callable[[], str]] = {
            "text": lambda: f"{text}\n",
            "srt": lambda: to_srt(segments),
            "vtt": lambda: to_vtt(segments),
        }
        if response_format in plain:
            kind = "text/vtt" if response_format == "vtt" else "text/plain"
            return Response(plain[response_format](), content_type=f"{kind}; charset=utf-8")
        body: dict[str, Any] = {"text": text}
        if response_format == "verbose_json":
            spoken = [
                word | {"word": word["word"].strip()} for segment in segments for word in segment.pop("words", [])
            ]
            body = {
                "task": self._task,
                "language": LANGUAGES.get(self._transcription.language, self._transcription.language),
                "duration": self._transcription.duration,
            } | body
            body |= {"segments": segments} | ({"words": spoken} if words else {})
        return json_response(body | {"usage": self._usage()})

    def events(self) -> Iterator[bytes | None]:
        """Yield OpenAI's transcript events."""
        text = ""
        for segments in self._transcription.segments(heartbeat=True):
            if segments is None:
                yield None
                continue
            for segment in segments:
                delta = segment["text"] if text else segment["text"].lstrip()
                text += delta
                yield encode_event({"type": "transcript.text.delta", "delta": delta})
        yield encode_event({"type": "transcript.text.done", "text": text.strip(), "usage": self._usage()})

    def _usage(self) -> dict[str, Any]:
        return {"type": "duration", "seconds": round(self._transcription.duration)}


def to_srt(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return the segments as SubRip subtitles: numbered, with a comma before the milliseconds."""
    blocks = (
        f"{number}\n{_time(segment['start'], ',')} --> {_time(segment['end'], ',')}\n{segment['text'].strip()}\n"
        for number, segment in enumerate(segments, 1)
    )
    return "\n".join(blocks)


def to_vtt(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return the segments as WebVTT subtitles. In a text, `-->` becomes `->`, because `-->` would start a subtitle."""
    blocks = (
        f"{_time(segment['start'], '.')} --> {_time(segment['end'], '.')}\n"
        f"{segment['text'].strip().replace('-->', '->')}\n"
        for segment in segments
    )
    return "\n".join(["WEBVTT\n", *blocks])


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
