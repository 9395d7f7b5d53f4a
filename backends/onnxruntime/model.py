"""Triton Python backend that stands in for Triton's own onnxruntime backend, which Triton's wheel does not have.

A model folder for one runs on the other. Triton prefers its own, so a model.py beside it has no effect. Accelerators
and other settings of that backend have no effect here.
"""

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from backends import start_logging
from backends.common.onnx_session import open_session

_FILE = "model.onnx"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        start_logging(args["model_name"])
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self._session = open_session(folder / (config.get("default_model_filename") or _FILE), "CPU", 0)
        self._inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        names = request.requested_output_names()
        try:
            arrays = self._session.run(names, feeds)
        except Exception as error:  # onnxruntime raises nothing more specific
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        outputs = [pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True)]
        return pb_utils.InferenceResponse(outputs)
