"""The requests of the commands, one function for each task. All raise ServerError if the server rejects a request."""

import base64
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from trident.cli.attachments import read_file
from trident.cli.client import ServerError
from trident.cli.session import Session

P = ParamSpec("P")
T = TypeVar("T")

AUDIO_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
IMAGE_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def _expected(function: Callable[P, T]) -> Callable[P, T]:
    """Raise ServerError if a response does not have the form of OpenAI's API."""

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(0, f"The server's response is not one of OpenAI's API ({error!r})") from error

    return checked


@_expected
def chat(session: Session, messages: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Return the whole response to a conversation."""
    body = {"model": session.model_id, "messages": list(messages), **fields}
    response = session.server.post("/v1/chat/completions", body)
    answer_text(response)
    return response


def stream_chat(session: Session, messages: Sequence[dict[str, Any]], **fields: Any) -> Iterator[dict[str, Any]]:
    """Yield the chunks of the response to a conversation. The last one has the usage."""
    body = {"model": session.model_id, "messages": list(messages), "stream": True, **fields}
    yield from session.server.events("/v1/chat/completions", body | {"stream_options": {"include_usage": True}})


@_expected
def embed(session: Session, texts: Sequence[str], dimensions: int | None = None) -> list[list[float]]:
    """Return the vectors of texts."""
    body: dict[str, Any] = {"model": session.model_id, "input": list(texts)}
    if dimensions:
        body["dimensions"] = dimensions
    return [row["embedding"] for row in session.server.post("/v1/embeddings", body)["data"]]


@_expected
def rerank(session: Session, query: str, documents: Sequence[str], top_n: int | None = None) -> list[dict[str, Any]]:
    """Return the documents with their index and `relevance_score`, the best one first."""
    body: dict[str, Any] = {"model": session.model_id, "query": query, "documents": list(documents)}
    if top_n:
        body["top_n"] = top_n
    found = session.server.post("/v1/rerank", body | {"return_documents": True})["results"]
    keys = ("index", "relevance_score", "document")
    return [{key: result[key] for key in keys} for result in found]


@_expected
def transcribe(session: Session, file: Path, response_format: str, **fields: str) -> str:
    """Return the transcript of an audio file in one of OpenAI's formats."""
    form = {"model": session.model_id, "response_format": response_format, **fields}
    return session.server.upload("/v1/audio/transcriptions", form, "file", file).decode()


def speak(session: Session, text: str, response_format: str, **fields: Any) -> Iterator[bytes]:
    """Yield the audio of a text as it is generated."""
    body = {"model": session.model_id, "input": text, "response_format": response_format, **fields}
    yield from session.server.chunks("/v1/audio/speech", body)


@_expected
def clone_voice(session: Session, text: str, reference: Path, reference_text: str | None = None) -> bytes:
    """Return a WAV file with a text in the voice of a recording, whose words some models need."""
    sound = {"data": base64.b64encode(read_file(reference)).decode(), "format": reference.suffix[1:].lower() or "wav"}
    content = [{"type": "text", "text": text}, {"type": "input_audio", "input_audio": sound}]
    body: dict[str, Any] = {"model": session.model_id, "messages": [{"role": "user", "content": content}]}
    if reference_text:
        body["reference_text"] = reference_text
    (part,) = session.server.post("/v1/audio/speech", body)["choices"][0]["message"]["content"]
    return base64.b64decode(part["audio_url"]["url"].partition(",")[2])


def remove_background(session: Session, file: Path, output_format: str = "png", refine: bool = False) -> bytes:
    """Return a picture without its background."""
    form = {"model": session.model_id, "output_format": output_format} | ({"refine": "true"} if refine else {})
    return session.server.upload("/v1/images/remove_background", form, "image", file)


@_expected
def make_images(session: Session, prompt: str, **fields: Any) -> list[bytes]:
    """Return generated images."""
    body = {"model": session.model_id, "prompt": prompt, "response_format": "b64_json", **fields}
    found = session.server.post("/v1/images/generations", body)["data"]
    return [base64.b64decode(image["b64_json"]) for image in found]


@_expected
def answer_text(response: dict[str, Any]) -> str:
    """Return the text of a chat response. Tool calls are returned as JSON."""
    message = response["choices"][0]["message"]
    return message.get("content") or (json.dumps(message["tool_calls"]) if message.get("tool_calls") else "")
