"""What all backends say to Triton in the same way: tensors, probes, described errors."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.common.errors import EngineFailure, RequestFailure


def read_parameters(request: Any) -> dict[str, Any]:
    """Return the request's Triton parameters; `probe` among them asks for an empty answer at once."""
    parameters: dict[str, Any] = json.loads(request.parameters() or "{}")
    return parameters


def read_strings(request: Any, name: str) -> list[bytes]:
    """Return the values of a BYTES input in order. Raises ValueError if the request does not have it.

    They belong to Triton, and go when execute returns.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise ValueError(f"the input '{name}' is missing")
    values = tensor.as_numpy().reshape(-1)
    return [value if isinstance(value, bytes) else str(value).encode() for value in values]


def read_options(request: Any) -> dict[str, Any]:
    """Return what the input `options`, a JSON object, asks for. The frontend has checked it."""
    options: dict[str, Any] = json.loads(read_strings(request, "options")[0])
    return options


def has_input(request: Any, name: str) -> bool:
    """Tell whether the request has this input."""
    return pb_utils.get_input_tensor_by_name(request, name) is not None


def string(name: str, value: str) -> Any:
    """Build an output of one string."""
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))


def number(name: str, value: int) -> Any:
    """Build an output of one INT32."""
    return pb_utils.Tensor(name, np.array([value], dtype=np.int32))


def error_response(error: BaseException) -> Any:
    """Build a failed response: its only tensor says why, as JSON.

    Not Triton's own error: this version's gRPC server crashes now and then when many streams end with one, and it has
    no room for the field's name.
    """
    failure = error if isinstance(error, RequestFailure) else EngineFailure("The model failed on this request")
    described = {"message": str(failure)} | {
        name: getattr(failure, name) for name in ("status", "param", "code", "row")
    }
    return pb_utils.InferenceResponse([string("error", json.dumps(described, ensure_ascii=False))])
