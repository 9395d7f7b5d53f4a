"""Requests to Triton's HTTP port. A local server that speaks Triton's protocol replaces Triton."""

import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import orjson
import pytest

from frontend.errors import (
    ClientClosedRequest,
    DeadlineExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    Unavailable,
)
from frontend.triton.http_client import Inference, UnaryClient


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head_size = int(self.headers["Inference-Header-Content-Length"])
        head, content = orjson.loads(body[:head_size]), body[head_size:]
        self.server.requests.append((self.path, head, content))
        self.server.connections.add(self.client_address)
        response = self.server.responses.pop(0) if self.server.responses else vectors([[1.0, 2.0]])
        if response == "hang":
            time.sleep(2)
        elif response == "drop":
            self.close_connection = True
        else:
            status, content, size = response
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Inference-Header-Content-Length", str(size))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def tensors(*outputs):
    head = orjson.dumps(
        {
            "outputs": [
                {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
                for name, kind, shape, raw in outputs
            ]
        }
    )
    return 200, head + b"".join(raw for *_, raw in outputs), len(head)


def vectors(rows):
    array = np.array(rows, np.float32)
    return tensors(("embedding", "FP32", list(array.shape), array.tobytes()))


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.responses, server.requests, server.connections = [], [], set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(server):
    return UnaryClient("127.0.0.1", server.server_port)


def infer(client, rows=(b"a", b"bc"), timeout=5.0):
    return Inference(
        client, "m", {"text": rows}, request_id="r1", timeout=timeout, parameters={"truncate": True, "kind": "query"}
    )


def test_the_request_is_encoded_and_the_response_decoded(client, server):
    server.responses = [vectors([[1, 2], [3, 4]])]
    np.testing.assert_array_equal(infer(client).result()["embedding"], [[1, 2], [3, 4]])
    ((path, head, content),) = server.requests
    assert path == "/v2/models/m/infer"
    assert head["id"] == "r1"
    assert head["parameters"] == {"truncate": True, "kind": "query", "binary_data_output": True}
    assert head["inputs"][0]["shape"] == [2, 1]
    assert content == struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"bc"


def test_successive_requests_reuse_one_connection(client, server):
    for _ in range(5):
        infer(client).result()
    assert len(server.connections) == 1


def test_concurrent_requests_use_two_connections(client, server):
    server.responses = [vectors([[1]]), vectors([[2]])]
    first = infer(client)
    second = infer(client)
    assert {first.result()["embedding"].item(), second.result()["embedding"].item()} == {1, 2}
    assert len(server.connections) == 2


def test_a_request_on_a_dropped_idle_connection_is_retried(client, server):
    infer(client).result()
    server.responses = ["drop"]
    assert infer(client).result()
    assert len(server.requests) == 3


def test_a_server_that_always_disconnects_is_unavailable(client, server):
    server.responses = ["drop"] * 3
    with pytest.raises(Unavailable):
        infer(client).result()


def test_a_closed_port_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unavailable, match="Model not initialized"):
        infer(UnaryClient("127.0.0.1", port)).result()


def test_the_timeout_raises_deadline_exceeded(client, server):
    server.responses = ["hang"]
    with pytest.raises(DeadlineExceeded):
        infer(client, timeout=0.2).result()


def test_cancel_from_another_thread_ends_the_wait_and_the_client_stays_usable(client, server):
    server.responses = ["hang"]
    inference = infer(client)
    threading.Timer(0.2, inference.cancel).start()
    started = time.monotonic()
    with pytest.raises(ClientClosedRequest):
        inference.result()
    assert time.monotonic() - started < 1
    assert infer(client).result()


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, InvalidRequest, "bad shape"),
        (404, Unavailable, "Model not initialized"),
        (503, Unavailable, "Model not initialized"),
        (500, EngineFailure, "The model failed on this request"),
    ],
)
def test_triton_error_is_converted_by_its_http_status(client, server, status, kind, message):
    content = orjson.dumps({"error": "bad shape"})
    server.responses = [(status, content, len(content))]
    with pytest.raises(kind, match=message):
        infer(client).result()


def test_a_backend_error_is_converted_by_its_code(client, server):
    text = orjson.dumps({"status": "UNAVAILABLE", "message": "full", "param": None, "code": "overloaded", "row": None})
    server.responses = [tensors(("error", "BYTES", [1], struct.pack("<I", len(text)) + text))]
    with pytest.raises(Overloaded, match="full"):
        infer(client).result()


def test_host_that_does_not_accept_the_connection_in_time_is_unavailable(monkeypatch):
    """The request has not been sent, so that it can go to another Triton."""

    def connect(self):
        raise TimeoutError("timed out")

    monkeypatch.setattr("http.client.HTTPConnection.connect", connect)
    with pytest.raises(Unavailable):
        Inference(
            UnaryClient("192.0.2.1", 8000), "m", {"text": [b"x"]}, request_id="1", timeout=5.0, parameters={}
        ).result()
