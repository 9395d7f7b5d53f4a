"""Traces requests to models with OpenTelemetry, if the setting `otlp_endpoint` is set. Otherwise nothing is imported.

A request's span is a child of the client's (W3C Trace Context), and Triton's spans are its children.
"""

from importlib.metadata import version
from typing import Any

from flask import Flask, Response, g, request

from frontend.access_log import log_fields, request_id
from frontend.caller import key_id, set_traceparent
from frontend.http.timing import timing
from frontend.request_usage import request_usage
from frontend.settings import Settings

_EXPORT_SECONDS = 2
# Service → the operation in OpenTelemetry's conventions for generative AI.
_OPERATIONS = {"chat": "chat", "embedding": "embeddings", "imgGen": "generate_content", "imgEdit": "generate_content"}


def register_tracing(app: Flask, settings: Settings) -> None:
    """Make `app` trace its requests to models. Call this after the fork: the exporter has a thread."""
    if not settings.otlp_endpoint:
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer, propagator = _tracer(settings.otlp_endpoint), TraceContextTextMapPropagator()

    @app.before_request
    def begin() -> None:
        service = timing().service
        if service is None:
            return
        route = request.url_rule.rule if request.url_rule else ""
        operation = _OPERATIONS.get(service, service)
        if service == "chat" and route.endswith("/completions") and not route.endswith("/chat/completions"):
            operation = "text_completion"
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "trident",
            "http.request.method": request.method,
            "http.route": route,
            "trident.service": service,
            "trident.request_id": request_id(),
        }
        parent = propagator.extract(request.headers)
        g.span = tracer.start_span(f"{request.method} {route}", parent, kind=SpanKind.SERVER, attributes=attributes)
        context = g.span.get_span_context()
        if context.trace_flags.sampled:
            set_traceparent(f"00-{context.trace_id:032x}-{context.span_id:016x}-01")

    @app.after_request
    def end(response: Response) -> Response:
        span = g.pop("span", None)
        if span is not None:
            fields, usage, key = log_fields(), request_usage(), key_id()
            response.call_on_close(lambda: _end(span, fields, usage, key, response))
        return response


def _end(span: Any, fields: dict[str, Any], usage: Any, key: str, response: Response) -> None:
    from opentelemetry.trace import Status, StatusCode

    status = int(fields.get("status", response.status_code))
    attributes: dict[str, Any] = {"http.response.status_code": status}
    if model := fields.get("model"):
        attributes |= {"gen_ai.request.model": model, "gen_ai.response.model": model}
    if usage.tokens:
        attributes |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
        }
    if usage.instances:
        attributes["trident.instances"] = list(usage.instances)
    if key:
        attributes["trident.key_id"] = key
    if status >= 400:
        attributes["error.type"] = str(fields.get("error", "")).partition(":")[0] or str(status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.set_attributes(attributes)
    span.end()


def _tracer(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    release = version("trident-serve")
    provider = TracerProvider(resource=Resource.create({"service.name": "trident", "service.version": release}))
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("trident", release)
