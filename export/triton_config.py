"""Renders, reads and merges a model's config.pbtxt.

The file declares the tensors of the model's task, and the model's parameters for the backend and the frontend.
"""

import calendar
import json
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from contract.tensors import MAX_ROWS, TENSORS
from export.catalog import Entry


def render_config(entry: Entry, parameters: dict[str, str]) -> str:
    """Return the text of config.pbtxt.

    `parameters` come from the converter. The parameters of the catalog entry take precedence over `parameters`.
    """
    tensors = TENSORS[entry.task]
    config = pb.ModelConfig(name=entry.name, backend=entry.backend, max_batch_size=MAX_ROWS if tensors.batched else 0)
    for name, kind in tensors.inputs.items():
        dims = [-1 if name in tensors.lists else 1]
        config.input.add(name=name, data_type=_type(kind), dims=dims, optional=name in tensors.optional)
    for name, kind in {**tensors.outputs, "error": "STRING"}.items():
        any_length = kind == "UINT8" or (kind == "FP32" and tensors.batched)
        config.output.add(name=name, data_type=_type(kind), dims=[-1 if any_length else 1])
    if tensors.batched:
        # The configuration sets no queue limit. frontend/triton/admission.py explains why, and limits the requests.
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
    if further := entry.ids[1:]:
        public["aliases"] = json.dumps(further)
    for key, value in (public | parameters | entry.parameters).items():
        config.parameters[key].string_value = value
    return str(text_format.MessageToString(config))


def read_model_parameters(config: Path) -> dict[str, str]:
    """Return the parameters of a config.pbtxt."""
    return {key: str(value.string_value) for key, value in parse_config(config).parameters.items()}


def parse_config(config: Path) -> pb.ModelConfig:
    """Return a parsed config.pbtxt. Raise ParseError if it has a syntax error."""
    return text_format.Parse(config.read_text(encoding="utf-8"), pb.ModelConfig())


def merge_edits(before: str, edited: str, after: str) -> str:
    """Return the newly rendered config `after`, with the edits that an operator made to the previous one, `before`.

    `edited` is the operator's file. Where a top-level field or a parameter was edited, the edit takes precedence over
    `after`. If only `edited` or only `after` differs from `before`, that text is returned verbatim. Raise ParseError if
    a text that must be merged has a syntax error.
    """
    if edited == before or before == after:
        return after if edited == before else edited
    old, own, new = (text_format.Parse(text, pb.ModelConfig()) for text in (before, edited, after))
    own_fields, old_fields = ({field.name: value for field, value in c.ListFields()} for c in (own, old))
    for field in pb.ModelConfig.DESCRIPTOR.fields:
        if field.name != "parameters" and own_fields.get(field.name) != old_fields.get(field.name):
            new.ClearField(field.name)
            part = pb.ModelConfig()
            part.CopyFrom(own)
            for other in part.DESCRIPTOR.fields:
                if other.name != field.name:
                    part.ClearField(other.name)
            new.MergeFrom(part)
    for key in {*own.parameters, *old.parameters}:
        if key not in own.parameters:
            new.parameters.pop(key, None)
        elif key not in old.parameters or own.parameters[key] != old.parameters[key]:
            new.parameters[key].CopyFrom(own.parameters[key])
    return str(text_format.MessageToString(new))


def _type(name: str) -> int:
    return int(pb.DataType.Value(f"TYPE_{name}"))
