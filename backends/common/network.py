"""Runs ONNX networks: in this process on onnxruntime, or as a model of its own in Triton."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from backends.common.onnx_session import open_session


class Network(Protocol):
    """A network with one output. Its methods may be called from any thread."""

    inputs: Collection[str]
    """The names of the inputs."""
    max_rows: int | None
    """The maximum size of a batch."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the output. `feeds` has an array for each input, whose first axis is the batch."""

    def warm_up(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Run the network before the first request, because a first run is slow."""


class LocalNetwork:
    """A file, run by onnxruntime in this process."""

    def __init__(self, path: Path, device: str, threads: int):
        self._session = open_session(path, device, threads)
        # The session's own description of its tensors would keep the session in memory after it is opened again.
        inputs = self._session.get_inputs()
        self.inputs: Collection[str] = [str(tensor.name) for tensor in inputs]
        self._output = [str(self._session.get_outputs()[0].name)]
        rows = inputs[0].shape[0]
        self.max_rows: int | None = rows if isinstance(rows, int) else None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """See `Network`."""
        (output,) = self._session.run(self._output, dict(feeds))
        return output  # type: ignore[no-any-return]

    def warm_up(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """See `Network`."""
        self.run(feeds)


class TritonNetwork:
    """A model of Triton, usually on a GPU. `description` is the parameter `network`: see contract/parameters.py."""

    def __init__(self, description: Mapping[str, Any]):
        import triton_python_backend_utils as pb_utils  # exists only in Triton's processes

        self._triton = pb_utils
        # A GPU's memory could not be read here.
        self._memory = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
        self._model, self._output = description["model"], description["output"]
        self.inputs: Collection[str] = description["inputs"]
        self.max_rows: int | None = description.get("max_rows")

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """See `Network`. Raises RuntimeError if the model is not loaded, or fails."""
        request = self._triton.InferenceRequest(
            model_name=self._model,
            inputs=[self._triton.Tensor(name, array) for name, array in feeds.items()],
            requested_output_names=[self._output],
            preferred_memory=self._memory,
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{self._model}: {response.error().message()}")
        output = self._triton.get_output_tensor_by_name(response, self._output)
        return output.as_numpy()  # type: ignore[no-any-return]

    def warm_up(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing: a model must not call another one while it is loaded, and Triton warms up the other one."""


def open_network(path: Path, device: str, threads: int, description: Mapping[str, Any] | None) -> Network:
    """Return the model of Triton that `description` names, or else the file's network."""
    return TritonNetwork(description) if description else LocalNetwork(path, device, threads)
