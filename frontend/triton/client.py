"""The Triton client.

Requests that can have many responses, and management requests, use gRPC. Requests with one response use HTTP
(http_client.py).
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from frontend.errors import APIError, EngineFailure
from frontend.instance_config import TritonAddress
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
_MANAGEMENT_SECONDS = 3.0
_UNLOADING, _POLL_SECONDS = "UNLOADING", 0.05


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

    def fail(self, error: APIError) -> None:
        """Make the waiting or the next `next` raise `error`, and cancel the call: its model has died."""
        self._arrived.put(error)
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
                self._arrived.put(_read_message(message))
        except APIError as error:
            self._arrived.put(error)
        except grpc.RpcError as error:
            self._arrived.put(_error_from_call(error))
        except Exception:
            log.exception("failed to read a response from Triton")
            self._call.cancel()
            self._arrived.put(EngineFailure("The model's response could not be read"))
        else:
            self._arrived.put(None)


class TritonClient:
    """A client of the gRPC server and the HTTP server of one Triton.

    Create it after forking: gRPC channels do not survive a fork.
    """

    def __init__(self, address: TritonAddress):
        self._unary = UnaryClient(address.host, address.http_port)
        self._channel = grpc.insecure_channel(address.grpc, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # Triton declares ModelStreamInfer as a bidirectional stream. A call with one request and many responses is
        # compatible with that, and cheaper.
        self._infer = self._channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    def stream(
        self,
        model: str,
        inputs: Mapping[str, Value],
        *,
        request_id: str,
        timeout: float,
        client: str | None = None,
        traceparent: str = "",
    ) -> Call:
        """Start a request to a decoupled model. `timeout` is the maximum time to the last response, in seconds.

        `client` identifies the HTTP client, for models that share their capacity fairly between clients. `traceparent`
        is the trace that Triton's own spans belong to.
        """
        request = build_request(model, inputs, request_id)
        if client is not None:
            request.parameters["client"].string_param = client
        metadata = (*_STATUS_CODES, ("traceparent", traceparent)) if traceparent else _STATUS_CODES
        return Call(self._infer(request, timeout=timeout, metadata=metadata))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Sequence[bytes]],
        *,
        request_id: str,
        timeout: float,
        parameters: Mapping[str, bool | str],
        traceparent: str = "",
    ) -> Inference:
        """Start a request to a batched model, which sends one response. `timeout` is in seconds.

        Raises APIError if the request cannot be sent.
        """
        return Inference(
            self._unary,
            model,
            inputs,
            request_id=request_id,
            timeout=timeout,
            parameters=parameters,
            traceparent=traceparent,
        )

    def probe(self, model: str, inputs: Sequence[str], *, batched: bool, timeout: float) -> None:
        """Send the model's backend a probe, which the backend answers without running the model.

        Raises APIError if the request fails or takes longer than `timeout` seconds.
        """
        request = build_request(model, dict.fromkeys(inputs, b""), "probe", batched)
        request.parameters["probe"].bool_param = True
        with _raise_api_errors():
            for message in self._infer(request, timeout=timeout, metadata=_STATUS_CODES):
                _read_message(message)

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
        """Unload a model after its requests have finished. Return when that is done, or after `timeout` seconds.

        Triton 2.51 corrupts its memory if a model finishes after it has been loaded again, probably because of its
        metrics. A request that was lost with a process that has died can keep the model from finishing at all.
        Raises APIError if Triton does not respond.
        """
        deadline = time.monotonic() + timeout
        with _raise_api_errors():
            self._stub.RepositoryModelUnload(
                service_pb2.RepositoryModelUnloadRequest(model_name=model), timeout=timeout
            )
        while ModelState(model, _UNLOADING) in self.index() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close the gRPC channel and the idle connections."""
        self._channel.close()
        self._unary.close_idle()


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


def _read_message(message: Any) -> dict[str, Any]:
    """Return the outputs of a response. Raises APIError if it is an error."""
    if message.error_message:  # Triton reports some errors in this way, without a status
        raise error_from_grpc("INTERNAL", message.error_message)
    response = read_response(message.infer_response)
    if "error" in response:
        raise error_from_backend(response["error"])
    return response


def _error_from_call(error: Any) -> APIError:
    return error_from_grpc(error.code().name, error.details())
