"""Measures a request, for its metrics and for the header `Server-Timing`."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flask import Flask, Response, g, has_request_context, request
from werkzeug.wsgi import ClosingIterator

from frontend import metrics
from frontend.access_log import log_fields

# Blueprint → service. Requests to other blueprints are not counted.
_SERVICES = {
    "chat": "chat",
    "responses": "chat",
    "completions": "chat",
    "embeddings": "embedding",
    "rerank": "rerank",
    "rerank_v2": "rerank",
    "speech": "tts",
    "transcriptions": "stt",
    "background": "background",
    "images": "imgGen",
}
_EDITS = ("/edits", "/variations")


@dataclass
class Timing:
    """The seconds that a request has waited for an instance (`queue`) and for responses of models (`engine`)."""

    started: float = field(default_factory=time.monotonic)
    queue: float = 0.0
    engine: float = 0.0
    response_bytes: int = 0
    service: str | None = None
    """The service that the request asks for, if it is one that is measured."""

    def header(self) -> str:
        """Return the value of the header `Server-Timing`, in milliseconds."""
        gateway = max(0.0, time.monotonic() - self.started - self.queue - self.engine)
        parts = {"queue": self.queue, "engine": self.engine, "gateway": gateway}
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts.items())


def timing() -> Timing:
    """Return the current request's timing; outside a request, one that nobody reads."""
    if not has_request_context():
        return Timing()
    found: Timing = g.timing
    return found


def register_timing(app: Flask) -> None:
    """Make `app` measure its requests, add the header, and record the metrics of requests to models."""

    @app.before_request
    def begin() -> None:
        g.timing = Timing(service=_service())
        g.service = g.timing.service
        if g.timing.service:
            metrics.add_active_request(g.timing.service)

    @app.after_request
    def finish(response: Response) -> Response:
        measured: Timing = g.get("timing") or Timing()
        response.headers["Server-Timing"] = measured.header()
        if measured.service:
            _record(response, measured.service, measured)
        return response


def _service() -> str | None:
    service = _SERVICES.get((request.blueprint or "").removeprefix("v1_"))
    path = request.url_rule.rule if request.url_rule else ""
    return "imgEdit" if service == "imgGen" and path.endswith(_EDITS) else service


def _record(response: Response, service: str, measured: Timing) -> None:
    """Record the request when its response ends."""
    fields, request_bytes = log_fields(), request.content_length or 0
    if response.is_streamed:
        chunks: Iterable[bytes] = response.response  # type: ignore[assignment]
        # The iterator must be closed even if it has not begun.
        close = [chunks.close] if hasattr(chunks, "close") else []
        response.response = ClosingIterator(_counted(chunks, measured), close)
    else:
        measured.response_bytes = response.content_length or 0

    def end() -> None:
        status = int(fields.get("status", response.status_code))
        seconds = time.monotonic() - measured.started
        metrics.remove_active_request(service)
        metrics.record_request(
            service, fields.get("model", ""), status, seconds, request_bytes, measured.response_bytes
        )

    response.call_on_close(end)


def _counted(chunks: Iterable[bytes], measured: Timing) -> Iterator[bytes]:
    for chunk in chunks:
        measured.response_bytes += len(chunk)
        yield chunk
