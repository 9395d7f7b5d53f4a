"""Tensors in the raw wire format of the KServe v2 protocol."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

# The value of an input: one string, several strings, or a boolean.
Value = bytes | str | bool | Sequence[bytes]
_NUMBERS = {"INT32": np.int32, "INT64": np.int64, "UINT32": np.uint32, "FP32": np.float32}


def build_request(model: str, inputs: Mapping[str, Value], request_id: str, batched: bool = False) -> Any:
    """Return a ModelInferRequest. n strings have the shape [n], or [n, 1] if `batched`; a boolean has the shape [1]."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in inputs.items():
        if isinstance(value, bool):
            request.inputs.add(name=name, datatype="BOOL", shape=[1])
            request.raw_input_contents.append(struct.pack("?", value))
            continue
        rows = [value.encode() if isinstance(value, str) else value] if isinstance(value, bytes | str) else value
        request.inputs.add(name=name, datatype="BYTES", shape=[len(rows), 1] if batched else [len(rows)])
        request.raw_input_contents.append(pack_strings(rows))
    return request


def read_response(response: Any) -> dict[str, Any]:
    """Return a mapping from output names to values for a ModelInferResponse."""
    return {
        output.name: read_tensor(output.datatype, list(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def read_tensor(datatype: str, shape: list[int], raw: bytes) -> Any:
    """Return the value of a tensor.

    The value is a str for datatype BYTES, which must have one element, and bytes for UINT8. For any other datatype, it
    is a number if the shape is [1] or [], otherwise an array.
    """
    if datatype == "UINT8":
        return raw
    if datatype == "BYTES":
        return raw[4:].decode()
    values = np.frombuffer(raw, _NUMBERS[datatype])
    return values[0].item() if shape in ([1], []) else values.reshape(shape)


def pack_strings(rows: Sequence[bytes]) -> bytes:
    """Return strings in Triton's format: each is preceded by its length in bytes, as a little-endian uint32."""
    return b"".join(struct.pack("<I", len(row)) + row for row in rows)
