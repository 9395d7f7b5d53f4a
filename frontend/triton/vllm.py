"""Chat models on Triton's stock vLLM backend. The backend's input is text, so this module renders the chat template.

The tensors are those of src/model.py and src/utils/request.py in Triton's vllm_backend, releases 24.12 and later.
"""

import base64
import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import orjson
from tokenizers import Tokenizer

from contract.chat_template import TemplateRejected, load_chat_template
from contract.options import SamplingParameters
from frontend.errors import EngineFailure, InvalidRequest
from frontend.triton.model import Model
from frontend.triton.routed_call import UNFINISHED, RoutedCall
from frontend.triton.tensors import Value

log = logging.getLogger(__name__)

_RETURNED = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")

# Fields of SamplingParameters that vLLM's sampling parameters do not include. This module applies these fields itself,
# except `logprobs`: frontend/generation/routing.py rejects requests for log probabilities.
_NATIVE_ONLY = ("stream", "echo", "chat_template_kwargs", "visible_tokens", "logprobs")


class _Prompt(NamedTuple):
    """A text prompt from the request field `param`, and its images. `preface` is text to put before the output."""

    text: str
    param: str
    preface: str = ""
    images: Sequence[bytes] = ()


class VllmChatModel:
    """A chat model on vLLM, with its tokenizer and chat template.

    The parameter `tokenizer` in the model's configuration is the path of the folder that contains both. The path is
    absolute, or relative to the model's folder in `repository`. The constructor raises EngineFailure if the parameter
    is missing or the files cannot be read.
    """

    honors_structured_output = False

    def __init__(self, model: Model, repository: Path):
        if "tokenizer" not in model.parameters:
            raise EngineFailure(f"The configuration of '{model.name}' lacks the parameter 'tokenizer'")
        self._model = model
        self.accepts: Collection[str] = ["image"] if model.serves("vision") and "image" in model.inputs else []
        self._tokenizer = _open_tokenizer(repository / model.name / model.parameters["tokenizer"])

    def conversation(
        self,
        messages: list[dict[str, Any]],
        files: Mapping[str, Sequence[bytes]],
        tools: Sequence[Mapping[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> Any:
        text = self._tokenizer.render(messages, tools, template_kwargs)
        return _Prompt(text, "messages", images=files.get("image", ()))

    def prompt(self, prompt: str | Sequence[int], echo: bool) -> Any:
        if not isinstance(prompt, str):
            raise InvalidRequest("This model does not support token IDs; send 'prompt' as text", param="prompt")
        return _Prompt(prompt, "prompt", prompt if echo else "")

    def inputs(self, prompt: Any, sampling: SamplingParameters) -> Mapping[str, Value]:
        """Return the input tensors of a request. Raises APIError.

        Rejects empty prompts and too long prompts with a 400, because vLLM would answer them with a 500. The tokens of
        images are not counted.
        """
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
        inputs = vllm_inputs(self._model, prompt.text, sampling, limit - tokens)
        if prompt.images:
            inputs["image"] = [base64.b64encode(image) for image in prompt.images]
        return inputs

    def responses(self, call: RoutedCall, prompt: Any) -> "VllmCall":
        return VllmCall(call, prompt.preface)


class _ModelTokenizer:
    """The chat template and the tokenizer in `folder`."""

    def __init__(self, folder: Path):
        self._template = load_chat_template(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._initial_token = "".join(self._tokenizer.encode("").tokens[:1])

    def render(self, messages: list[dict[str, Any]], tools: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the prompt without its initial special token, because vLLM adds this token. Raises InvalidRequest."""
        try:
            rendered = self._template.render(messages, list(tools), kwargs)
        except TemplateRejected as error:
            raise InvalidRequest(str(error), param="messages") from error
        return rendered.removeprefix(self._initial_token)

    def count(self, text: str) -> int:
        """Return the number of tokens that vLLM reads for `text`.

        Tokenizes in a native thread, because tokenizing a long text would block the other greenlets.
        """
        count: int = gevent.get_hub().threadpool.apply(lambda: len(self._tokenizer.encode(text).ids))
        return count


@functools.lru_cache(maxsize=16)
def _open_tokenizer(folder: Path) -> _ModelTokenizer:
    """Return the (cached) template and tokenizer of a folder. Raises EngineFailure if their files cannot be read."""
    try:
        return _ModelTokenizer(folder)
    except Exception as error:  # tokenizers raises nothing more specific
        log.exception("failed to read the chat template and the tokenizer in %s", folder)
        raise EngineFailure("The model's tokenizer cannot be read; see the server log") from error


def vllm_inputs(model: Model, text: str, sampling: Mapping[str, Any], remaining_context: int) -> dict[str, Value]:
    """Return the input tensors of a request. Raises EngineFailure if the model's configuration lacks an input.

    `remaining_context` is the number of tokens that fit into the context after the prompt. It is the upper limit of
    `max_tokens`. It is also the default of `max_tokens`, because vLLM's own default is only 16.
    """
    parameters = {name: value for name, value in sampling.items() if name not in _NATIVE_ONLY}
    if sampling.get("visible_tokens"):
        parameters["skip_special_tokens"] = False
    parameters["max_tokens"] = min(parameters.get("max_tokens", remaining_context), remaining_context)
    if parameters.get("top_k") == 0:
        parameters["top_k"] = -1  # 0 and -1 both disable top-k sampling, but some versions of vLLM reject 0
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
    """A call to a model on vLLM. Its responses have the same fields as those of backends/generation.

    The text of the first response starts with `preface`.
    """

    def __init__(self, call: RoutedCall, preface: str = ""):
        self._call, self._preface = call, preface
        self._num_output_tokens = 0

    def cancel(self) -> None:
        """Cancel the call in Triton."""
        self._call.cancel()

    def take_queue_seconds(self) -> float:
        """Return how long the call has waited for an instance since this was last called."""
        return self._call.take_queue_seconds()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the first response from the model. Raises like `next`."""
        self._call.wait(timeout)

    def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next response, or None after the last one.

        Raises TimeoutError if no response arrives within `timeout` seconds, or APIError if the call fails.
        """
        response = self._call.next(timeout)
        if response is None:
            return None
        self._num_output_tokens += response["num_output_tokens"]  # a response reports only its own tokens
        text, self._preface = self._preface + response["text_output"], ""
        finish_reason = response["finish_reason"]
        if finish_reason == UNFINISHED:
            return {"text_output": text}
        if finish_reason not in ("stop", "length"):
            raise EngineFailure(f"The model stopped early: {finish_reason}")
        counts = {"num_input_tokens": response["num_input_tokens"], "num_output_tokens": self._num_output_tokens}
        return {"text_output": text, "finish_reason": finish_reason} | counts
