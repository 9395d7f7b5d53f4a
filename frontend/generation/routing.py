"""Routes conversations to chat, transcription or OCR models, by the media in them, and prompts to chat models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from contract.options import SamplingParameters
from contract.tensors import CHAT
from frontend.caller import client_id
from frontend.errors import InvalidRequest, PayloadTooLarge
from frontend.generation.messages import ChatMessage, Message, check_parts, find_media, has_media, render_messages
from frontend.generation.sequential import AudioTranscript, ImageText, transcribe
from frontend.generation.structured_output import reject_structured_output
from frontend.inference.response_stream import Choices, ResponseSource, ResponseStream, start_all, start_call
from frontend.media.sources import read_media
from frontend.services import require_model, services
from frontend.triton.model import Model
from frontend.triton.native import ChatModel, ModelCall, NativeChatModel
from frontend.triton.router import Group
from frontend.triton.vllm import VllmChatModel

Tools = Sequence[Mapping[str, Any]]

# The media in a conversation → the tasks and capabilities of the models that may answer it, in order of preference.
_TASKS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("chat",),
    ("audio",): ("audio", "transcription", "chat"),
    ("image",): ("vision", "ocr", "chat"),
    ("audio", "image"): ("vision", "audio", "chat"),
}


@dataclass
class Delivery:
    """How the calls of one conversation are sent."""

    cache_key: str = ""
    """The request's `prompt_cache_key`: conversations with the same key are sent to the same instance."""
    whole: bool = False
    """Whether the HTTP response begins after the last response of the model, so that a lost call can be repeated."""
    group: Group = field(default_factory=Group)


def select_model(name: str, messages: Sequence[Message]) -> Model:
    """Return the model that `name` refers to, chosen to suit the media in `messages`.

    Raises APIError, for example if no suitable model is loaded.
    """
    kinds = tuple(kind for kind in ("audio", "image") if has_media(messages, kind))
    return require_model(name, *_TASKS[kinds])


def start(
    model: Model,
    messages: Sequence[ChatMessage],
    sampling: SamplingParameters,
    tools: Tools = (),
    metadata: Mapping[str, str] | None = None,
    delivery: Delivery | None = None,
) -> ResponseSource:
    """Start one choice for a conversation, and wait for the model's first response.

    Raises APIError. If a part of `messages` is invalid, the error names that part.
    """
    delivery = delivery or Delivery()
    if model.task == "chat":
        chat_model = _chat_model(model, sampling)
        prompt = _conversation(model, chat_model, messages, sampling, tools)
        return ResponseStream(_start_call(model, chat_model, prompt, sampling, delivery), CHAT.last_output)
    reject_structured_output(sampling)
    if model.task == "transcription":
        return AudioTranscript(model, messages, delivery.whole)
    return ImageText(model, messages, delivery.whole, with_boxes=(metadata or {}).get("boxes") == "true")


def start_choices(
    model: Model,
    messages: Sequence[ChatMessage],
    samplings: Sequence[SamplingParameters],
    tools: Tools = (),
    metadata: Mapping[str, str] | None = None,
    delivery: Delivery | None = None,
) -> Choices:
    """Start one choice for a conversation per item of `samplings`, and wait for the model's first response to each.

    Raises APIError.
    """
    if len(samplings) == 1:
        return Choices(lambda _: [start(model, messages, samplings[0], tools, metadata, delivery)], 1)
    if model.task != "chat":
        raise InvalidRequest("'n' must be 1 for this model", param="n")
    chat_model = _chat_model(model, samplings[0])
    prompt = _conversation(model, chat_model, messages, samplings[0], tools)
    sent = delivery or Delivery()

    def start_some(indices: Sequence[int]) -> Sequence[ResponseSource]:
        # The model streams even if the client does not: the other choices start when the first choice's first response
        # arrives (see Choices). Without streaming, that response would arrive only when the first choice is finished.
        streamed = [samplings[index] | {"stream": True} for index in indices]
        calls = [partial(_start_call, model, chat_model, prompt, sampling, sent) for sampling in streamed]
        return start_all(calls, CHAT.last_output, whole=sent.whole)

    return Choices(start_some, len(samplings))


def start_prompt(model: Model, prompt: str | Sequence[int], sampling: SamplingParameters) -> ModelCall:
    """Start a call that continues a text or a list of token IDs. Raises APIError.

    With `echo` in `sampling`, the output begins with the prompt.
    """
    chat_model = _chat_model(model, sampling)
    return _start_call(model, chat_model, chat_model.prompt(prompt, bool(sampling.get("echo"))), sampling, Delivery())


def _chat_model(model: Model, sampling: SamplingParameters) -> ChatModel:
    """Return the adapter for `model`'s engine, which is our own or vLLM.

    Raises InvalidRequest if `sampling` requests structured output or log probabilities and the engine supports neither.
    """
    vllm = model.uses_vllm
    chat_model: ChatModel = (
        VllmChatModel(model, services().settings.model_repository) if vllm else NativeChatModel(model)
    )
    if not chat_model.honors_structured_output:
        reject_structured_output(sampling)
    return chat_model


def _conversation(
    model: Model, chat_model: ChatModel, messages: Sequence[ChatMessage], sampling: SamplingParameters, tools: Tools
) -> Any:
    """Read the files of a conversation, and return the prompt for it. Raises APIError.

    Audio is transcribed if the model does not accept it.
    """
    check_parts(messages, chat_model.accepts)
    files = {kind: _read_files(messages, kind) for kind in chat_model.accepts}
    audio = [] if "audio" in files else find_media(messages, "audio")
    transcripts = {found.param: transcribe(found) for found in audio}
    rendered = render_messages(messages, model, transcripts)
    return chat_model.conversation(rendered, files, tools, sampling.get("chat_template_kwargs", {}))


def _read_files(messages: Sequence[Message], kind: str) -> list[bytes]:
    """Return the encoded images or audio files of all messages, in order.

    Raises APIError if a file cannot be read, or if all files together exceed the size limit of one file.
    """
    settings, files, name = services().settings, list[bytes](), "images" if kind == "image" else "audio files"
    for found in find_media(messages, kind):
        files.append(read_media(found.url, found.param, settings))
        if sum(map(len, files)) > settings.max_upload_bytes:
            raise PayloadTooLarge(
                f"The {name} together exceed the limit of {settings.max_upload_bytes} bytes", param=found.param
            )
    return files


def _start_call(
    model: Model, chat_model: ChatModel, prompt: Any, sampling: SamplingParameters, delivery: Delivery
) -> ModelCall:
    call = start_call(
        model,
        chat_model.inputs(prompt, sampling),
        timeout=services().settings.request_timeout,
        client=client_id(),
        **vars(delivery),
    )
    return chat_model.responses(call, prompt)
