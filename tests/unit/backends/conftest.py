"""A fake of `triton_python_backend_utils`, a module that exists only inside Triton's Python backend."""

import sys
from types import SimpleNamespace

import numpy as np


class Tensor:
    def __init__(self, name, values):
        self._name, self._values = name, values

    def name(self):
        return self._name

    def as_numpy(self):
        return self._values


class InferenceResponse:
    def __init__(self, output_tensors):
        self._tensors = output_tensors

    def values(self):
        """Return the arrays by output name. A one-element array is replaced by its element, unless it is UINT8."""
        arrays = {tensor.name(): tensor.as_numpy() for tensor in self._tensors}
        return {
            name: array if array.size != 1 or array.dtype == np.uint8 else array[0] for name, array in arrays.items()
        }


sys.modules["triton_python_backend_utils"] = SimpleNamespace(
    Tensor=Tensor,
    InferenceResponse=InferenceResponse,
    TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
    get_input_tensor_by_name=lambda request, name: request.inputs.get(name),
)
