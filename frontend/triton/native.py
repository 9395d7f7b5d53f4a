"""Chat models on Trident's own backend, and the interface that they share with chat models on vLLM (vllm.py)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import orjson

from contract.options import SamplingParameters
from frontend.triton.model import Model
from frontend.triton.routed_call import RoutedCall
from frontend.triton.tensors import Value

# The types of files in a conversation → the capability of the models that accept them.
_CAPABILITIES = {"image": "vision", "audio": "audio"}


class ModelCall(Protocol):
    """A call to a chat model. Its responses have the tensors that contract/tensors.py lists for chat."""

    def next(self, timeout: float | None = None) -> dict[str, Any] | None: ...
    def wait(self, timeout: float | None = None) -> None: ...
    def take_queue_seconds(self) -> float: ...
    def cancel(self) -> None: ...


class ChatModel(Protocol):
    """Builds the requests for conversations and prompts, and reads the responses.

    Each implementation has its own type of prompt, which only its own methods read.
    """

    accepts: Collection[str]
    """The types of files that conversations may have: `image` and `audio`."""
    honors_structured_output: bool

    def conversation(
        self,
        messages: list[dict[str, Any]],
        files: Mapping[str, Sequence[bytes]],
        tools: Sequence[Mapping[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> Any:
        """Return the prompt for a conversation. `files` are the files of its parts by their type. Raises APIError."""
        ...

    def prompt(self, prompt: str | Sequence[int], echo: bool) -> Any:
        """Return the prompt that makes the model continue a text or token IDs. Raises InvalidRequest.

        `echo` is whether the output begins with the prompt.
        """
        ...

    def inputs(self, prompt: Any, sampling: SamplingParameters) -> Mapping[str, Value]:
        """Return the tensors of a request. Raises APIError."""
        ...

    def responses(self, call: RoutedCall, prompt: Any) -> ModelCall:
        """Return the responses of `call`, which was started with the inputs of `prompt`."""
        ...


class NativeChatModel:
    """A chat model on backends/generation. That backend renders templates, counts tokens and applies `echo` itself."""

    honors_structured_output = True

    def __init__(self, model: Model):
        self._adapter = model.adapter
        self.accepts: Collection[str] = [kind for kind, capability in _CAPABILITIES.items() if model.serves(capability)]

    def conversation(
        self,
        messages: list[dict[str, Any]],
        files: Mapping[str, Sequence[bytes]],
        tools: Sequence[Mapping[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> Any:
        inputs: dict[str, Value] = {"messages": orjson.dumps(messages)}
        if tools:
            inputs["tools"] = orjson.dumps(tools)
        return inputs | {kind: contents for kind, contents in files.items() if contents}

    def prompt(self, prompt: str | Sequence[int], echo: bool) -> Any:
        return {"prompt": prompt} if isinstance(prompt, str) else {"token_ids": np.array(prompt, "<i4").tobytes()}

    def inputs(self, prompt: Any, sampling: SamplingParameters) -> Mapping[str, Value]:
        parameters = sampling | {"adapter": self._adapter} if self._adapter else sampling
        return {**prompt, "sampling_parameters": orjson.dumps(parameters)}

    def responses(self, call: RoutedCall, prompt: Any) -> ModelCall:
        return call
