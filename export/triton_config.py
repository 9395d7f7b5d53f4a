"""Writes a model's config.pbtxt: its task's tensors and the parameters the backend and the frontend read."""

import calendar
import json

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.catalog import Entry

_STRING, _INT32 = pb.TYPE_STRING, pb.TYPE_INT32

# Task → (inputs, outputs, decoupled); the names follow Triton's vLLM backend where it has them.
TENSORS = {
    "chat": (
        {"messages": _STRING, "sampling_parameters": _STRING},
        {
            "text_output": _STRING,
            "finish_reason": _STRING,
            "num_input_tokens": _INT32,
            "num_output_tokens": _INT32,
            "error": _STRING,
        },
        True,
    ),
}


def render_config(entry: Entry, parameters: dict[str, str]) -> str:
    """Return the text of config.pbtxt; `parameters` are those the converter found in the weights."""
    inputs, outputs, decoupled = TENSORS[entry.task]
    config = pb.ModelConfig(name=entry.name, backend=entry.backend, max_batch_size=0)
    for name, kind in inputs.items():
        config.input.add(name=name, data_type=kind, dims=[1])
    for name, kind in outputs.items():
        config.output.add(name=name, data_type=kind, dims=[1])
    config.model_transaction_policy.decoupled = decoupled
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
