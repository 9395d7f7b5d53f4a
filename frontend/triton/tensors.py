"""Tensors on the wire of the KServe v2 protocol, in raw form."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

Value = bytes | str
_NUMBERS = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}


def build_request(model: str, inputs: Mapping[str, Value], request_id: str) -> Any:
    """Return a ModelInferRequest whose inputs are strings, each of shape [1]."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in inputs.items():
        content = value.encode() if isinstance(value, str) else value
        request.inputs.add(name=name, datatype="BYTES", shape=[1])
        request.raw_input_contents.append(struct.pack("<I", len(content)) + content)
    return request


def read_response(response: Any) -> dict[str, Any]:
    """Return output name → its one value: str for BYTES, a number else."""
    return {
        output.name: _first(output.datatype, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _first(datatype: str, raw: bytes) -> Any:
    if datatype == "BYTES":
        return raw[4:].decode()
    return np.frombuffer(raw, _NUMBERS[datatype], count=1).item()
