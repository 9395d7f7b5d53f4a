"""The Triton client.

Requests that can have many responses, and management requests, use gRPC. Requests with one response use HTTP
(http_client.py).
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from frontend.errors import APIError, EngineFailure
from frontend.triton.http_client import Inference, UnaryClient
from frontend.triton.status import error_from_backend, error_from_grpc
from frontend.triton.tensors import Value, build_request, read_response

log = logging.getLogger(__name__)

_MAX_MESSAGE = 256 << 20
_OPTIONS = [
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    # Reconnect soon after Triton restarts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# Without this metadata, Triton reports the error of a stream only as text, without a gRPC status code.
_STATUS_CODES = (("triton_grpc_error", "true"),)
_MANAGEMENT_SECONDS = 5.0


@dataclass(frozen=True)
class ModelState:
    """A model in Triton's repository index.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE, or empty if Triton has not tried to load the model.
    """

    name: str
    state: str


class Call:
    """A request in progress that can have many responses, each a dict of output name → value.

    `cancel()` may be called from any thread and at any time.
    """

    def __init__(self, call: Any):
        self._call = call
        self._arrived: queue.SimpleQueue[dict[str, Any] | APIError | None] = queue.SimpleQueue()
        self._over = False
        threading.Thread(target=self._receive, name="triton-call", daemon=True).start()

    def cancel(self) -> None:
        """Stop the work in Triton, unless the call has ended."""
        if not self._over:
            self._call.cancel()

    def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next response, or None after the last response or an error.

        Raises TimeoutError if no response arrives within `timeout` seconds, or APIError if the call fails.
        """
        if self._over:
            return None
        try:
            arrived = self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if not isinstance(arrived, dict):
            self._over = True
        if isinstance(arrived, APIError):
            raise arrived
        return arrived

    def _receive(self) -> None:
        try:
            for message in self._call:
                response = read_response(message.infer_response)
                self._arrived.put(error_from_backend(response["error"]) if "error" in response else response)
        except grpc.RpcError as error:
            self._arrived.put(_error_from_call(error))
        except Exception:
            log.exception("failed to read a response from Triton")
            self._call.cancel()
            self._arrived.put(EngineFailure("The model's response could not be read"))
        else:
            self._arrived.put(None)


class TritonClient:
    """A client of Triton's gRPC server at `address` (HOST:PORT) and its HTTP server at `http_port` on the same host.

    Create it after forking: gRPC channels do not survive a fork.
    """

    def __init__(self, address: str, http_port: int):
        self._unary = UnaryClient(address.rpartition(":")[0], http_port)
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # Triton declares ModelStreamInfer as a bidirectional stream. A call with one request and many responses is
        # compatible with that, and cheaper.
        self._infer = self._channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    def stream(
        self, model: str, inputs: Mapping[str, Value], *, request_id: str, timeout: float, client: str | None = None
    ) -> Call:
        """Start a request to a decoupled model. `timeout` is the maximum time to the last response, in seconds.

        `client` identifies the HTTP client, for models that share their capacity fairly between clients.
        """
        request = build_request(model, inputs, request_id)
        if client is not None:
            request.parameters["client"].string_param = client
        return Call(self._infer(request, timeout=timeout, metadata=_STATUS_CODES))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Sequence[bytes]],
        *,
        request_id: str,
        timeout: float,
        parameters: Mapping[str, bool | str],
    ) -> Inference:
        """Start a request to a batched model, which sends one response. `timeout` is in seconds.

        Raises APIError if the request cannot be sent.
        """
        return Inference(self._unary, model, inputs, request_id=request_id, timeout=timeout, parameters=parameters)

    def probe(self, model: str, inputs: Sequence[str], *, batched: bool, timeout: float) -> None:
        """Send the model's backend a probe, which the backend answers without running the model.

        Raises APIError if the request fails or takes longer than `timeout` seconds.
        """
        request = build_request(model, dict.fromkeys(inputs, b""), "probe", batched)
        request.parameters["probe"].bool_param = True
        with _raise_api_errors():
            for _ in self._infer(request, timeout=timeout, metadata=_STATUS_CODES):
                pass

    def index(self) -> list[ModelState]:
        """Return the models in Triton's repository, loaded or not. Raises APIError if Triton does not respond."""
        with _raise_api_errors():
            index = self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=_MANAGEMENT_SECONDS)
        return [ModelState(model.name, model.state) for model in index.models]

    def config(self, model: str) -> Any:
        """Return a loaded model's configuration, as Triton's ModelConfig message. Raises APIError if the call fails."""
        with _raise_api_errors():
            request = service_pb2.ModelConfigRequest(name=model)
            return self._stub.ModelConfig(request, timeout=_MANAGEMENT_SECONDS).config

    def load(self, model: str, timeout: float) -> None:
        """Load a model, and return when it is ready. Raises APIError if that fails."""
        with _raise_api_errors():
            self._stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=model), timeout=timeout)

    def unload(self, model: str, timeout: float) -> None:
        """Unload a model after its requests have finished. Raises APIError if that fails."""
        with _raise_api_errors():
            self._stub.RepositoryModelUnload(
                service_pb2.RepositoryModelUnloadRequest(model_name=model), timeout=timeout
            )

    def close(self) -> None:
        """Close the gRPC channel."""
        self._channel.close()


def read_config(path: Path) -> Any:
    """Return the configuration in a config.pbtxt, as Triton's ModelConfig message. Raises ValueError or OSError."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path}, line {error}") from error


@contextlib.contextmanager
def _raise_api_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _error_from_call(error) from error


def _error_from_call(error: Any) -> APIError:
    return error_from_grpc(error.code().name, error.details())
