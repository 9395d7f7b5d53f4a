"""Tensors on the wire of the KServe v2 protocol, in raw form."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

# One string, of shape [1]; or one a row of a batch, of shape [rows, 1].
Value = bytes | str | Sequence[bytes]
_NUMBERS = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}


def build_request(
    model: str, inputs: Mapping[str, Value], request_id: str, parameters: Mapping[str, bool | str] | None = None
) -> Any:
    """Return a ModelInferRequest whose inputs are strings."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in inputs.items():
        if isinstance(value, bytes | str):
            request.inputs.add(name=name, datatype="BYTES", shape=[1])
            request.raw_input_contents.append(_pack(value.encode() if isinstance(value, str) else value))
        else:
            request.inputs.add(name=name, datatype="BYTES", shape=[len(value), 1])
            request.raw_input_contents.append(b"".join(map(_pack, value)))
    for name, parameter in (parameters or {}).items():
        if isinstance(parameter, bool):
            request.parameters[name].bool_param = parameter
        else:
            request.parameters[name].string_param = parameter
    return request


def read_response(response: Any) -> dict[str, Any]:
    """Return output name → its value: str for BYTES, a number for shape [1], else an array."""
    return {
        output.name: _read(output, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _read(output: Any, raw: bytes) -> Any:
    if output.datatype == "BYTES":
        return raw[4:].decode()
    values = np.frombuffer(raw, _NUMBERS[output.datatype])
    return values[0].item() if list(output.shape) == [1] else values.reshape(output.shape)


def _pack(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content
