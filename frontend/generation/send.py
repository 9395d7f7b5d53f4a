"""Asks a chat model, with a conversation or with a prompt to go on with: what all endpoints that generate share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from flask import request

from frontend.access_log import request_id
from frontend.errors import EngineFailure, InvalidRequest
from frontend.generation.render import check_parts, model_messages, read_images
from frontend.generation.tools import ChatMessage
from frontend.services import services
from frontend.triton.chat_template import ChatTemplate, open_template
from frontend.triton.client import Call
from frontend.triton.registry import Model
from frontend.triton.tensors import Value
from frontend.triton.vllm import VllmCall, vllm_inputs


def read_conversation(
    model: Model, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]
) -> dict[str, Value]:
    """Return a conversation as the model gets it. Raises APIError, naming a part that cannot be read."""
    if model.speaks_vllm:
        check_parts(messages, sees=False)
        more = sampling.get("chat_template_kwargs", {})
        return {"text_input": _template(model).render(model_messages(messages, model), tools, more)}
    check_parts(messages, sees=model.serves("vision"))
    images = read_images(messages)
    inputs: dict[str, Value] = {"messages": orjson.dumps(model_messages(messages, model))}
    if tools:
        inputs["tools"] = orjson.dumps(tools)
    return inputs | {"image": images} if images else inputs


def send_prompt(model: Model, prompt: str | Sequence[int], sampling: Mapping[str, Any]) -> Call | VllmCall:
    """Begin to go on with a text, or with token ids. `sampling` may have `echo`: the answer begins with the prompt."""
    if model.speaks_vllm:
        if not isinstance(prompt, str):
            raise InvalidRequest("This model takes prompts as text, not as token ids", param="prompt")
        return _send_text(model, prompt, sampling, "prompt", prompt if sampling.get("echo") else "")
    asked: dict[str, Value] = {"prompt": prompt} if isinstance(prompt, str) else {"token_ids": _pack(prompt)}
    return send(model, asked, sampling)


def send(model: Model, inputs: Mapping[str, Value], sampling: Mapping[str, Any]) -> Call | VllmCall:
    """Begin an answer to what `read_conversation` has returned. Raises APIError."""
    if model.speaks_vllm:
        return _send_text(model, str(inputs["text_input"]), sampling, "messages")
    return _send(model, {**inputs, "sampling_parameters": orjson.dumps(sampling)})


def reject_structured_output(sampling: Mapping[str, Any]) -> None:
    """Refuse what only our own backend does to an answer. Raises InvalidRequest."""
    constraint = sampling.get("constraint")
    param = constraint["param"] if constraint else "logprobs" if sampling.get("logprobs") else None
    if param:
        field = "tool_choice" if param == "tools" else param
        raise InvalidRequest(f"This model does not take '{field}'", param=field, code="unsupported_parameter")


def _send_text(model: Model, text: str, sampling: Mapping[str, Any], param: str, preface: str = "") -> VllmCall:
    """Ask vLLM. What it would refuse, without saying that it is the caller's fault, is refused here."""
    reject_structured_output(sampling)
    tokens, limit = _template(model).count(text), model.number("context_length")
    if not tokens:
        raise InvalidRequest("The prompt is empty", param=param)
    if tokens >= limit:
        raise InvalidRequest(
            f"This model's maximum context length is {limit} tokens. However, your {param} resulted in {tokens} "
            f"tokens. Please reduce the length of the {param}.",
            param=param,
            code="context_length_exceeded",
        )
    return VllmCall(_send(model, vllm_inputs(model, text, sampling, limit - tokens)), preface)


def _template(model: Model) -> ChatTemplate:
    """Return the template that the parameter `tokenizer` names: a folder, absolute or in that of the model."""
    if "tokenizer" not in model.parameters:
        raise EngineFailure(f"The configuration of '{model.name}' has no parameter 'tokenizer'")
    own = services().settings.cache / "model_repository" / model.name
    return open_template(own / model.parameters["tokenizer"])


def _pack(ids: Sequence[int]) -> bytes:
    return np.array(ids, "<i4").tobytes()


def _send(model: Model, inputs: Mapping[str, Value]) -> Call:
    timeout = services().settings.request_timeout
    client = request.remote_addr or ""
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=timeout, client=client)
