"""What Triton's stock vLLM backend takes and answers, which differs from backends/generation: one text in.

The contract is that of vllm_backend's src/model.py and src/utils/request.py, releases 24.12 and later.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from frontend.errors import EngineFailure
from frontend.triton.client import Call
from frontend.triton.registry import Model
from frontend.triton.tensors import Value

_RETURNED = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")

# Among the sampling parameters, but for our own backend.
_NOT_VLLMS = ("stream", "echo", "chat_template_kwargs", "visible_tokens", "logprobs")

# What the backend writes where an answer goes on.
_GOES_ON = "None"


def vllm_inputs(model: Model, text: str, sampling: Mapping[str, Any], room: int) -> dict[str, Value]:
    """Return the tensors of a request; `room` is what the context has left, vLLM's own default being 16 tokens.

    Raises EngineFailure if the model's configuration leaves out some of them.
    """
    parameters = {name: value for name, value in sampling.items() if name not in _NOT_VLLMS}
    if sampling.get("visible_tokens"):
        parameters["skip_special_tokens"] = False
    parameters["max_tokens"] = min(parameters.get("max_tokens", room), room)
    if parameters.get("top_k") == 0:
        parameters["top_k"] = -1  # not all versions know 0 for all tokens
    inputs: dict[str, Value] = {
        "text_input": text,
        "stream": bool(sampling.get("stream")),
        "exclude_input_in_output": True,  # what is not streamed would have it otherwise
        "sampling_parameters": orjson.dumps(parameters),
        **dict.fromkeys(_RETURNED, True),
    }
    if missing := sorted(inputs.keys() - set(model.inputs)):
        raise EngineFailure(f"The configuration of '{model.name}' lacks the inputs {', '.join(missing)}")
    return inputs


class VllmCall:
    """A call to such a model, with responses as backends/generation has them; the first begins with `preface`."""

    def __init__(self, call: Call, preface: str = ""):
        self._call, self._preface = call, preface
        self._num_output_tokens = 0

    def cancel(self) -> None:
        """Stop the work in Triton."""
        self._call.cancel()

    def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next response, or None after the last. Raises TimeoutError after `timeout` seconds, APIError."""
        response = self._call.next(timeout)
        if response is None:
            return None
        self._num_output_tokens += response["num_output_tokens"]  # of this response alone
        text, self._preface = self._preface + response["text_output"], ""
        finish_reason = response["finish_reason"]
        if finish_reason == _GOES_ON:
            return {"text_output": text}
        if finish_reason not in ("stop", "length"):
            raise EngineFailure(f"The model ended its answer early: {finish_reason}")
        counts = {"num_input_tokens": response["num_input_tokens"], "num_output_tokens": self._num_output_tokens}
        return {"text_output": text, "finish_reason": finish_reason} | counts
