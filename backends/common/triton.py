"""Every backend's interface to Triton: configuration, inputs, outputs and errors."""

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import triton_python_backend_utils as pb_utils

from backends import start_logging
from backends.common.errors import EngineFailure, RequestFailure
from contract.parameters import read_parameters
from contract.tensors import TaskTensors

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

P = TypeVar("P")
_TYPES = {"INT32": np.int32, "FP32": np.float32}


def load_model_config(args: dict[str, str], kind: type[P]) -> tuple[Path, P]:
    """Return the model's version folder and its parameters. `args` is the argument of Triton's `initialize`.

    Also starts logging to Triton's log. Raises ValueError if a parameter is missing or invalid.
    """
    start_logging(args["model_name"])
    config = json.loads(args["model_config"])
    texts = {key: value["string_value"] for key, value in config["parameters"].items()}
    return Path(args["model_repository"]) / args["model_version"], read_parameters(kind, texts)


def request_parameters(request: Any) -> dict[str, Any]:
    """Return the request's Triton parameters; the parameter `probe` asks for an immediate, empty response."""
    parameters: dict[str, Any] = json.loads(request.parameters() or "{}")
    return parameters


def read_strings(request: Any, name: str) -> list[bytes]:
    """Return the values of a STRING input in order. Raises ValueError if the request does not have the input.

    Call this before `execute` returns, because Triton frees a request's inputs at that point.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise ValueError(f"the input '{name}' is missing")
    values = tensor.as_numpy().reshape(-1)
    return [value if isinstance(value, bytes) else str(value).encode() for value in values]


def has_input(request: Any, name: str) -> bool:
    """Return whether the request has this input."""
    return pb_utils.get_input_tensor_by_name(request, name) is not None


def response(tensors: TaskTensors, **values: Any) -> Any:
    """Return a response with the outputs in `values`.

    The value of a STRING output is a str, that of a UINT8 output bytes, and that of another output a number or array.
    Raises KeyError for an output that the task does not have.
    """
    return pb_utils.InferenceResponse([_tensor(name, tensors.outputs[name], value) for name, value in values.items()])


def error_response(error: BaseException) -> Any:
    """Return an error response, whose only tensor describes the error as JSON.

    An error that is not a RequestFailure is described only as a failure of the model, to hide internals from clients.
    Triton's own error type is not used, because it cannot carry `param`, and because the gRPC server of our version of
    Triton sometimes crashes when many streams end with such an error.
    """
    failure = error if isinstance(error, RequestFailure) else EngineFailure("The model failed on this request")
    description = {"message": str(failure)} | {
        name: getattr(failure, name) for name in ("status", "param", "code", "row")
    }
    return pb_utils.InferenceResponse([_tensor("error", "STRING", json.dumps(description, ensure_ascii=False))])


def _tensor(name: str, kind: str, value: Any) -> Any:
    if kind == "STRING":
        return pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))
    if kind == "UINT8":
        return pb_utils.Tensor(name, np.frombuffer(value, np.uint8))
    return pb_utils.Tensor(name, np.atleast_1d(np.asarray(value, _TYPES[kind])))
