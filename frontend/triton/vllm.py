"""Chat models on Triton's stock vLLM backend, whose input is a text, so the chat template is rendered here.

Tensors follow src/model.py and src/utils/request.py in Triton's vllm_backend, releases 24.12 and later.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import orjson
from tokenizers import Tokenizer

from contract.chat_template import TemplateRejected, load_chat_template
from contract.options import SamplingParameters
from frontend.errors import EngineFailure, InvalidRequest
from frontend.triton.client import Call
from frontend.triton.registry import Model
from frontend.triton.tensors import Value

log = logging.getLogger(__name__)

_RETURNED = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")

# Fields of SamplingParameters that are not among vLLM's sampling parameters. This module applies them itself, except
# logprobs: routing.py rejects requests for them.
_NATIVE_ONLY = ("stream", "echo", "chat_template_kwargs", "visible_tokens", "logprobs")

# The backend's finish reason for a response that is not the last.
_UNFINISHED = "None"


class _Prompt(NamedTuple):
    """A text prompt. `param` is the request's field that it comes from, `preface` a text to put before the output."""

    text: str
    param: str
    preface: str = ""


class VllmChatModel:
    """A chat model on vLLM, with its tokenizer and chat template. Raises EngineFailure.

    Their folder is the parameter `tokenizer` in the model's configuration: an absolute path, or one relative to the
    model's folder in `repository`.
    """

    accepts_images = False
    honors_structured_output = False

    def __init__(self, model: Model, repository: Path):
        if "tokenizer" not in model.parameters:
            raise EngineFailure(f"The configuration of '{model.name}' lacks the parameter 'tokenizer'")
        self._model = model
        self._tokenizer = _open_tokenizer(repository / model.name / model.parameters["tokenizer"])

    def conversation(
        self,
        messages: list[dict[str, Any]],
        images: Sequence[bytes],
        tools: Sequence[Mapping[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> Any:
        return _Prompt(self._tokenizer.render(messages, tools, template_kwargs), "messages")

    def prompt(self, prompt: str | Sequence[int], echo: bool) -> Any:
        if not isinstance(prompt, str):
            raise InvalidRequest("This model does not support token IDs; send 'prompt' as text", param="prompt")
        return _Prompt(prompt, "prompt", prompt if echo else "")

    def inputs(self, prompt: Any, sampling: SamplingParameters) -> Mapping[str, Value]:
        """Return the tensors of a request. Rejects prompts that vLLM would answer with a 500. Raises APIError."""
        tokens, limit = self._tokenizer.count(prompt.text), self._model.int_parameter("context_length")
        if not tokens:
            raise InvalidRequest(f"'{prompt.param}' must not be empty", param=prompt.param)
        if tokens >= limit:
            raise InvalidRequest(
                f"This model's maximum context length is {limit} tokens. However, your {prompt.param} resulted in "
                f"{tokens} tokens. Please reduce the length of the {prompt.param}.",
                param=prompt.param,
                code="context_length_exceeded",
            )
        return vllm_inputs(self._model, prompt.text, sampling, limit - tokens)

    def responses(self, call: Call, prompt: Any) -> "VllmCall":
        return VllmCall(call, prompt.preface)


class _ModelTokenizer:
    """The chat template and the tokenizer in `folder`."""

    def __init__(self, folder: Path):
        self._template = load_chat_template(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._initial_token = "".join(self._tokenizer.encode("").tokens[:1])

    def render(self, messages: list[dict[str, Any]], tools: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the prompt without its initial token, which vLLM adds when it tokenizes. Raises InvalidRequest."""
        try:
            rendered = self._template.render(messages, list(tools), kwargs)
        except TemplateRejected as error:
            raise InvalidRequest(str(error), param="messages") from error
        return rendered.removeprefix(self._initial_token)

    def count(self, text: str) -> int:
        """Return how many tokens vLLM reads for a text. Uses a native thread: a long text must not block greenlets."""
        count: int = gevent.get_hub().threadpool.apply(lambda: len(self._tokenizer.encode(text).ids))
        return count


@functools.lru_cache(maxsize=16)
def _open_tokenizer(folder: Path) -> _ModelTokenizer:
    """Return the cached template and tokenizer of a folder. Raises EngineFailure if they cannot be read."""
    try:
        return _ModelTokenizer(folder)
    except Exception as error:  # tokenizers raises nothing more specific
        log.exception("failed to read the chat template and the tokenizer in %s", folder)
        raise EngineFailure("The model's tokenizer cannot be read; see the server log") from error


def vllm_inputs(model: Model, text: str, sampling: Mapping[str, Any], remaining_context: int) -> dict[str, Value]:
    """Return the tensors of a request. Raises EngineFailure if the model's configuration lacks one of them.

    `remaining_context` is the number of tokens that fit in the context after the prompt. It is the upper limit of
    `max_tokens` and its default, because vLLM's own default is 16.
    """
    parameters = {name: value for name, value in sampling.items() if name not in _NATIVE_ONLY}
    if sampling.get("visible_tokens"):
        parameters["skip_special_tokens"] = False
    parameters["max_tokens"] = min(parameters.get("max_tokens", remaining_context), remaining_context)
    if parameters.get("top_k") == 0:
        parameters["top_k"] = -1  # both mean all tokens, but not all versions of vLLM accept 0
    inputs: dict[str, Value] = {
        "text_input": text,
        "stream": bool(sampling.get("stream")),
        "exclude_input_in_output": True,  # otherwise, output that is not streamed includes the input
        "sampling_parameters": orjson.dumps(parameters),
        **dict.fromkeys(_RETURNED, True),
    }
    if missing := sorted(inputs.keys() - set(model.inputs)):
        raise EngineFailure(f"The configuration of '{model.name}' lacks the inputs {', '.join(missing)}")
    return inputs


class VllmCall:
    """A call to a model on vLLM, with responses like those of backends/generation. The first starts with `preface`."""

    def __init__(self, call: Call, preface: str = ""):
        self._call, self._preface = call, preface
        self._num_output_tokens = 0

    def cancel(self) -> None:
        """Stop the work in Triton."""
        self._call.cancel()

    def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next response, or None after the last one.

        Raises TimeoutError if there is none within `timeout` seconds, or APIError if the call fails.
        """
        response = self._call.next(timeout)
        if response is None:
            return None
        self._num_output_tokens += response["num_output_tokens"]  # each response counts only its own
        text, self._preface = self._preface + response["text_output"], ""
        finish_reason = response["finish_reason"]
        if finish_reason == _UNFINISHED:
            return {"text_output": text}
        if finish_reason not in ("stop", "length"):
            raise EngineFailure(f"The model stopped early: {finish_reason}")
        counts = {"num_input_tokens": response["num_input_tokens"], "num_output_tokens": self._num_output_tokens}
        return {"text_output": text, "finish_reason": finish_reason} | counts
