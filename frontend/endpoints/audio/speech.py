"""POST /audio/speech and GET /audio/voices.

Speech accepts two request formats: OpenAI's createSpeech, and AHA's (see docs/compatibility.md).
"""

import base64
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from flask import Blueprint, Response, request
from pydantic import Discriminator, Field, Tag, model_validator

from contract.options import SpeechOptions
from contract.scripts import can_speak
from contract.tensors import SPEECH
from frontend.access_log import log_fields
from frontend.endpoints.media_completion import media_completion
from frontend.errors import APIError, ClientClosedRequest, InvalidRequest, PayloadTooLarge
from frontend.generation.messages import Media, Message, find_media, inline_media_size
from frontend.generation.sequential import transcribe
from frontend.http.body import RequestBody, read_body
from frontend.http.respond import StreamedResponse, encode_event, json_response
from frontend.inference.response_stream import ResponseStream, start_call
from frontend.media.sources import read_media
from frontend.services import require_model, services
from frontend.triton.model import Model
from frontend.triton.routed_call import RoutedCall

blueprint = Blueprint("speech", __name__)

_CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class VoiceId(RequestBody):
    """A voice as an object, as in OpenAI's API."""

    id: str = Field(description="Name of the voice.")


VoiceName = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[VoiceId, Tag("<object>")],
    Discriminator(lambda value: "<object>" if isinstance(value, dict | VoiceId) else "<name>"),
]
"""A voice, given by its name or by an object, as in OpenAI's API."""


class SpeechRequest(RequestBody):
    """The body of a speech request: OpenAI's createSpeech, or AHA's format with `messages` instead of `input`."""

    model: str | None = Field(None, description="ID, name or alias of the model. The default speech model if omitted.")
    input: str | None = Field(None, description="Text to speak. Required without `messages`; ignored with `messages`.")
    messages: list[Message] | None = Field(
        None,
        min_length=1,
        description="[AHA](../compatibility.md)'s request format. The text of all messages is spoken. The messages "
        "may contain one audio part: a recording of the voice to clone. The response is a chat completion that "
        "contains a WAV file. `response_format` and `stream_format` are ignored.",
    )
    reference_text: str | None = Field(
        None,
        max_length=500,
        description="Words spoken in the recording, if the model needs them (VoxCPM 0.5B and 1.5). If omitted, the "
        "default transcription model transcribes the recording.",
    )
    voice: VoiceName | None = Field(
        None,
        description="Name or alias of a voice, as listed by `GET /v1/audio/voices`. If omitted, the model uses its "
        "default voice. Ignored when a voice is cloned.",
    )
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = Field(
        "mp3",
        description="Audio format, always mono at the model's sample rate (24 kHz; VoxCPM: 16, 44.1 or 48 kHz). "
        "`pcm` is 16-bit little-endian samples without a header.",
    )
    speed: float = Field(
        1.0, ge=0.25, le=4, description="Multiple of the normal speaking rate; the pitch does not change."
    )
    stream_format: Literal["audio", "sse"] = Field(
        "audio", description="`audio`: the audio bytes as they are generated; `sse`: OpenAI's speech events."
    )

    @model_validator(mode="after")
    def _has_text(self) -> "SpeechRequest":
        if self.input is None and self.messages is None:
            raise InvalidRequest(
                "Invalid request: missing required parameter 'input'", param="input", code="missing_parameter"
            )
        if not self.text().strip():
            if self.messages:
                raise InvalidRequest("'messages' must contain text to speak", param="messages")
            raise InvalidRequest("'input' must not be empty", param="input")
        return self

    def text(self) -> str:
        """Return the text to speak; the texts in `messages` are joined by line breaks."""
        if not self.messages:
            return self.input or ""
        contents = [message.content for message in self.messages]
        parts = [
            [content] if isinstance(content, str) else [part.text or "" for part in content] for content in contents
        ]
        return "\n".join(text for texts in parts for text in texts if text)

    def reference(self) -> Media | None:
        """Return the reference audio of the voice to clone, if any. Raises InvalidRequest if there are several."""
        first, *more = [*find_media(self.messages or (), "audio"), None]
        if first and more[0]:
            raise InvalidRequest("Too many reference audio parts (limit 1)", param=more[0].param)
        return first

    def options(self) -> SpeechOptions:
        """Return the options for the backend."""
        voice = self.voice.id if isinstance(self.voice, VoiceId) else self.voice
        return SpeechOptions(voice, self.speed, "wav" if self.messages else self.response_format)


@blueprint.post("/audio/speech")
def create_speech() -> Response:
    """Stream the speech as audio or as events; in AHA's format, return the complete speech."""
    model, call, names, shape = _send()
    speech = Speech(model, call, names)
    if shape == "completion":
        return json_response(speech.completion())
    if shape == "sse":
        return speech.event_stream()
    return Response(speech.audio(), content_type=_CONTENT_TYPES[shape])


def _send() -> tuple[Model, RoutedCall, dict[str | None, str], str]:
    """Send the request to the model. Return the model, the call, the field names and the response format.

    The field names map the backend's input names to the request's field names. The response format is `completion`,
    `sse` or a value of `response_format`. This is a separate function so that the request body, which may be large, is
    freed when the function returns.
    """
    body = read_body(SpeechRequest, inline_media_size)
    model = require_model(body.model, "speech")
    options, text, reference = body.options(), body.text(), body.reference()
    if not reference and not can_speak(text, _languages(model)) and (other := _speaking_model(text)):
        if options.voice in set(_voice_names(model)) - set(_voice_names(other)):
            options = replace(options, voice=None)
        model = other
        log_fields()["model"] = model.id
    if reference:
        spoken = body.reference_text
        if not spoken and model.parameters.get("needs_transcript") == "true":
            spoken = _transcript(reference)
        options = replace(options, reference_text=spoken)
    inputs: dict[str, Any] = {"text_input": text, "options": options.to_json()}
    if reference:
        inputs["reference_audio"] = read_media(reference.url, reference.param, services().settings)
    shape = "completion" if body.messages else "sse" if body.stream_format == "sse" else body.response_format
    names: dict[str | None, str] = {"input": "messages"} if body.messages else {}
    if reference:
        names["file"] = reference.param
    return model, start_call(model, inputs), names, shape


def _transcript(reference: Media) -> str:
    """Return the words spoken in the reference audio. Raises APIError."""
    if not any(model.task == "transcription" for model in services().registry.models()):
        raise InvalidRequest(
            "The model needs the words spoken in the reference audio, and no transcription model is loaded: send them "
            "in 'reference_text'",
            param="reference_text",
            code="missing_parameter",
        )
    found = transcribe(reference)
    if not found.strip():
        raise InvalidRequest("The reference audio has no speech", param=reference.param, code="invalid_audio")
    return found


def _speaking_model(text: str) -> Model | None:
    """Return the first loaded model that can speak the text, if any."""
    models = [model for model in services().registry.models() if model.task == "speech"]
    return next((model for model in models if can_speak(text, _languages(model))), None)


def _languages(model: Model) -> list[str]:
    return model.parameters.get("languages", "en").split()


def _voice_names(model: Model) -> list[str]:
    return [name for voice in _voices(model) for name in (voice["id"], *voice["aliases"])]


@blueprint.get("/audio/voices")
def list_voices() -> Response:
    """List the voices of all speech models, or of the model that `?model=` names, with the voices' aliases."""
    name, registry = request.args.get("model"), services().registry
    if name is not None:
        models = [registry.require(name, "speech")]
    else:
        models = [model for model in registry.models() if model.task == "speech"]
    voices = [voice for model in models for voice in _voices(model)]
    return json_response({"object": "list", "voices": voices})


def _voices(model: Model) -> Iterator[dict[str, Any]]:
    aliases = orjson.loads(model.parameters.get("voice_aliases", "{}"))
    for voice in orjson.loads(model.parameters.get("voices", "[]")):
        names = [alias for alias, target in aliases.items() if target == voice["id"]]
        yield (
            {"id": voice["id"], "name": voice["id"], "object": "voice", "model": model.id} | voice | {"aliases": names}
        )


class Speech(StreamedResponse):
    """The response to one speech request.

    The constructor waits for the model's first response. If an error occurs before that response, the constructor
    raises APIError, so that the error can set the HTTP status.
    """

    def __init__(self, model: Model, call: RoutedCall, names: Mapping[str | None, str]):
        response_timeout = services().settings.request_timeout
        self._responses = ResponseStream(call, SPEECH.last_output, response_timeout, names)
        super().__init__(self._responses)
        self._model = model
        self._usage: dict[str, int] = {}

    def audio(self) -> Iterator[bytes]:
        """Yield the audio file in chunks. If generation fails, raise APIError, which closes the connection."""
        try:
            for chunk in self._chunks():
                if chunk:
                    yield chunk
        except APIError as error:
            self._log_fields |= error.log_fields()
            if not isinstance(error, ClientClosedRequest):  # a disconnect is not a server error
                raise
        finally:
            self._responses.close()

    def events(self) -> Iterator[bytes | None]:
        """Yield OpenAI's speech events."""
        for chunk in self._chunks(heartbeat=True):
            if chunk is None:
                yield None
            elif chunk:
                audio = base64.b64encode(chunk).decode()
                yield encode_event({"type": "speech.audio.delta", "audio": audio})
        names = ("input_tokens", "output_tokens", "total_tokens")
        yield encode_event({"type": "speech.audio.done", "usage": dict(zip(names, self._usage.values(), strict=True))})

    def completion(self) -> dict[str, Any]:
        """Return AHA's response: a `chat.completion` whose content is the complete WAV file. Raises APIError."""
        content, limit = bytearray(), services().settings.max_upload_bytes
        for chunk in self._chunks():
            content += chunk or b""
            if len(content) > limit:
                self._responses.close()
                raise PayloadTooLarge(
                    f"The speech exceeds the limit of {limit:,} bytes; send 'input' instead of 'messages' to stream it",
                    param="messages",
                )
        file = _with_length(bytes(content))
        return media_completion(self._model.id, "audio", "audio/wav", [file]) | {"usage": self._usage}

    def _chunks(self, heartbeat: bool = False) -> Iterator[bytes | None]:
        for response in self._responses.responses(heartbeat):
            if response is None:
                yield None
                continue
            if "num_output_tokens" in response:
                prompt, completion = response["num_input_tokens"], response["num_output_tokens"]
                self._usage = {"prompt_tokens": prompt, "completion_tokens": completion}
                self._usage["total_tokens"] = prompt + completion
                self._log_fields |= self._usage
            yield response["audio"]


def _with_length(content: bytes) -> bytes:
    """Return a streamed WAV file whose header has the real lengths instead of 2³²-1, the value for unknown lengths."""
    data = content.index(b"data") + 4
    sizes = struct.pack("<I", len(content) - 8), struct.pack("<I", len(content) - data - 4)
    return b"".join([content[:4], sizes[0], content[8:data], sizes[1], content[data + 4 :]])
