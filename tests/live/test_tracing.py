"""Traces of requests: from the client through the frontend to Triton, at a collector that records them."""

import gzip
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.live import MODEL, url, user, wait_until
from tests.support.stack import running_stack

EMBEDDING = "bge-small-en-v1.5"


class Collector(BaseHTTPRequestHandler):
    """Records spans: those of the frontend as protobuf, those of Triton as JSON."""

    spans: list[dict] = []  # noqa: RUF012 - shared by all requests on purpose

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        if "json" in self.headers["Content-Type"]:
            for resource in json.loads(content)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    self.spans += [span | {"from": "triton"} for span in scope["spans"]]
        else:
            for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
                for scope in resource.scope_spans:
                    self.spans += [_span(span) for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Print nothing."""


def _span(span):
    values = {item.key: item.value for item in span.attributes}
    return {
        "from": "frontend",
        "name": span.name,
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "attributes": {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()},
    }


@pytest.fixture(scope="module")
def collector():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def stack(collector):
    with running_stack([EMBEDDING, MODEL], "--otlp-endpoint", collector) as settings:
        yield settings


def spans_of(trace):
    return [span for span in Collector.spans if span["traceId"].lower() == trace]


def send_traced(stack, path, body, parent):
    """Send a request, and return the ID of its trace when both have sent their spans.

    Exporters drop spans that they fail to send, so that the request is sent up to three times.
    """
    key = "tr-SecretSecretSecretSecretSecretSecretSecret"
    for _ in range(3):
        trace = uuid.uuid4().hex
        headers = {"traceparent": f"00-{trace}-{parent}-01", "Authorization": f"Bearer {key}", "X-API-Key": key}
        assert requests.post(url(stack, path), json=body, headers=headers, timeout=60).status_code == 200
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if {span["from"] for span in spans_of(trace)} == {"frontend", "triton"}:
                return trace
            time.sleep(0.05)
    raise AssertionError(f"only these spans: {spans_of(trace)}")


@pytest.mark.parametrize(
    ("path", "body", "operation", "tokens"),
    [
        ("/v1/embeddings", {"model": EMBEDDING, "input": "hello"}, "embeddings", 3),
        ("/v1/chat/completions", {"model": MODEL, "messages": user("Hi"), "max_tokens": 5}, "chat", 31),
        ("/v1/chat/completions", {"model": MODEL, "messages": user("Hi"), "max_tokens": 5, "stream": True}, "chat", 31),
    ],
)
def test_trace_goes_from_the_client_through_the_frontend_into_triton(stack, path, body, operation, tokens):
    parent = "00f067aa0ba902b7"
    trace = send_traced(stack, path, body, parent)
    (own,) = [span for span in spans_of(trace) if span["from"] == "frontend"]
    assert own["parentSpanId"] == parent
    attributes = own["attributes"]
    assert attributes["gen_ai.operation.name"] == operation
    assert attributes["gen_ai.request.model"].endswith(("bge-small-en-v1.5", "SmolLM2-135M-Instruct"))
    assert attributes["http.response.status_code"] == 200
    assert abs(attributes["gen_ai.usage.input_tokens"] - tokens) < 2
    parents = {span.get("parentSpanId", "").lower() for span in spans_of(trace) if span["from"] == "triton"}
    assert own["spanId"] in parents
    assert "Secret" not in str(spans_of(trace))


def test_requests_that_the_client_does_not_sample_are_not_traced(stack):
    trace = "0" * 31 + "7"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-00"}
    body = {"model": EMBEDDING, "input": "hello"}
    assert requests.post(url(stack, "/v1/embeddings"), json=body, headers=headers, timeout=60).status_code == 200
    marker = "0" * 31 + "8"
    headers = {"traceparent": f"00-{marker}-00f067aa0ba902b7-01"}
    assert requests.post(url(stack, "/v1/embeddings"), json=body, headers=headers, timeout=60).status_code == 200
    wait_until(lambda: spans_of(marker), 20, "the spans of the next request")
    assert not spans_of(trace)


def test_failed_requests_have_an_error_type(stack):
    trace = "0" * 31 + "9"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    body = {"model": EMBEDDING, "input": []}
    assert requests.post(url(stack, "/v1/embeddings"), json=body, headers=headers, timeout=60).status_code == 400
    wait_until(lambda: spans_of(trace), 20, "the span")
    attributes = spans_of(trace)[0]["attributes"]
    assert attributes["http.response.status_code"] == 400
    assert attributes["error.type"]


def test_nothing_is_imported_when_tracing_is_off(make_process):
    assert make_process("import sys, frontend.app; print('opentelemetry' in sys.modules)") == "False"


@pytest.fixture
def make_process():
    import subprocess
    import sys

    def run(code):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
        return result.stdout.strip()

    return run
