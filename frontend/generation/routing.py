"""Who answers a conversation, and with what: chat models, and those that hear or read what is in it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from frontend.errors import InvalidRequest
from frontend.generation.audio_transcript import AudioTranscript
from frontend.generation.image_text import ImageText
from frontend.generation.messages import Message, has_media
from frontend.generation.send import read_conversation, reject_structured_output, send
from frontend.generation.tools import ChatMessage
from frontend.inference.choices import Choices, Responses
from frontend.inference.response_stream import ResponseStream, await_all
from frontend.services import services
from frontend.triton.registry import Model

# What a conversation with such media can be answered by, the best first: a model's task, or its capability.
_TASKS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("chat",),
    ("audio",): ("transcription", "chat"),
    ("image",): ("vision", "ocr", "chat"),
    ("audio", "image"): ("vision", "chat"),
}


def select_model(name: str, messages: Sequence[Message]) -> Model:
    """Return the model asked for: one that chats, for audio also one that transcribes, for images one that reads."""
    kinds = tuple(kind for kind in ("audio", "image") if has_media(messages, kind))
    return services().registry.require(name, *_TASKS[kinds])


def start(
    model: Model, messages: Sequence[ChatMessage], sampling: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = ()
) -> Responses:
    """Have a conversation answered. Raises APIError, naming a part of `messages` that cannot be read."""
    if model.task != "chat":
        reject_structured_output(sampling)
    if model.task == "transcription":
        return AudioTranscript(model, messages)
    if model.task == "ocr":
        return ImageText(model, messages)
    return ResponseStream(send(model, read_conversation(model, messages, tools, sampling), sampling), "finish_reason")


def start_choices(
    model: Model,
    messages: Sequence[ChatMessage],
    samplings: Sequence[dict[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> Choices:
    """Have a conversation answered several times, once for each of `samplings`. Raises APIError."""
    if len(samplings) == 1:
        return Choices(lambda _: [start(model, messages, samplings[0], tools)], 1)
    if model.task != "chat":
        raise InvalidRequest(f"A model for {model.task} has one answer", param="n")
    conversation = read_conversation(model, messages, tools, samplings[0])

    # Streamed, so that the others need not wait for the first one's end: see Choices.
    samplings = [sampling | {"stream": True} for sampling in samplings]

    def start_some(numbers: Sequence[int]) -> Sequence[Responses]:
        return await_all([partial(send, model, conversation, samplings[number]) for number in numbers], "finish_reason")

    return Choices(start_some, len(samplings))
