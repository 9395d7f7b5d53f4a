"""Writes a model's config.pbtxt: its task's tensors and the parameters the backend and the frontend read."""

import calendar
import json
from typing import NamedTuple

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.catalog import Entry

_STRING, _INT32, _FP32, _UINT8 = pb.TYPE_STRING, pb.TYPE_INT32, pb.TYPE_FP32, pb.TYPE_UINT8
_ROWS = 64


class Tensors(NamedTuple):
    """A task's tensors, name → type; the names follow Triton's vLLM backend where it has them.

    Inputs in `lists` have any number of values, all others one. A batched task takes up to 64 rows a request, which
    Triton puts together with those of other requests.
    """

    inputs: dict[str, int]
    outputs: dict[str, int]
    decoupled: bool = False
    batched: bool = False
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


TENSORS = {
    "chat": Tensors(
        {
            "messages": _STRING,
            "prompt": _STRING,
            "token_ids": _STRING,
            "sampling_parameters": _STRING,
            "tools": _STRING,
            "image": _STRING,
        },
        {
            "text_output": _STRING,
            "finish_reason": _STRING,
            "num_input_tokens": _INT32,
            "num_output_tokens": _INT32,
            "num_reasoning_tokens": _INT32,
            "logprobs": _STRING,
            "error": _STRING,
        },
        decoupled=True,
        optional=("messages", "prompt", "token_ids", "tools", "image"),
        lists=("image",),
    ),
    "transcription": Tensors(
        {"audio": _STRING, "options": _STRING},
        {"text_output": _STRING, "segments": _STRING, "language": _STRING, "duration": _FP32, "error": _STRING},
        decoupled=True,
    ),
    "speech": Tensors(
        {"text_input": _STRING, "options": _STRING, "reference_audio": _STRING},
        {"audio": _UINT8, "num_input_tokens": _INT32, "num_output_tokens": _INT32, "error": _STRING},
        decoupled=True,
        optional=("reference_audio",),
    ),
    "background_removal": Tensors(
        {"image": _STRING, "options": _STRING},
        {"image_output": _UINT8, "error": _STRING},
        decoupled=True,
    ),
    "image_generation": Tensors(
        {"prompt": _STRING, "options": _STRING, "image": _STRING, "mask": _STRING},
        {
            "image_output": _UINT8,
            "index": _INT32,
            "partial": _INT32,
            "num_input_tokens": _INT32,
            "revised_prompt": _STRING,
            "error": _STRING,
        },
        decoupled=True,
        optional=("image", "mask"),
    ),
    "ocr": Tensors(
        {"image": _STRING},
        {"text_output": _STRING, "boxes": _STRING, "num_output_tokens": _INT32, "error": _STRING},
        decoupled=True,
    ),
    "embedding": Tensors(
        {"text": _STRING, "token_ids": _STRING},
        {"embedding": _FP32, "num_input_tokens": _INT32, "error": _STRING},
        batched=True,
        optional=("text", "token_ids"),
    ),
    "rerank": Tensors(
        {"query": _STRING, "document": _STRING},
        {"score": _FP32, "num_input_tokens": _INT32, "error": _STRING},
        batched=True,
    ),
}


def render_config(entry: Entry, parameters: dict[str, str]) -> str:
    """Return the text of config.pbtxt; `parameters` are those the converter found in the weights."""
    tensors = TENSORS[entry.task]
    config = pb.ModelConfig(name=entry.name, backend=entry.backend, max_batch_size=_ROWS if tensors.batched else 0)
    for name, kind in tensors.inputs.items():
        dims = [-1 if name in tensors.lists else 1]
        config.input.add(name=name, data_type=kind, dims=dims, optional=name in tensors.optional)
    for name, kind in tensors.outputs.items():
        any_length = kind == _UINT8 or (kind == _FP32 and tensors.batched)
        config.output.add(name=name, data_type=kind, dims=[-1 if any_length else 1])
    if tensors.batched:
        # No limit of the queue here: see frontend/admission.py.
        config.dynamic_batching.SetInParent()
    config.model_transaction_policy.decoupled = tensors.decoupled
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
    public = {
        "task": entry.task,
        "id": entry.id,
        "owned_by": entry.owned_by,
        "created": str(calendar.timegm(entry.created.timetuple())),
        "capabilities": json.dumps(entry.capabilities),
    }
    for key, value in (public | parameters | entry.parameters).items():
        config.parameters[key].string_value = value
    return str(text_format.MessageToString(config))
