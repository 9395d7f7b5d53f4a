"""Triton's Python backend for transcription: encoded files in, a response a segment out."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Triton imports this file by path; its neighbours are the package of this folder's name.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocol.errors import InvalidRequest, QueueFull, RequestFailure
from protocol.loading import begin
from protocol.tensors import error_response, read_parameters, read_strings, string
from transcription.jobs import Job
from transcription.turns import Turns
from transcription.whisper import Options, Whisper

log = logging.getLogger(__name__)

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = begin(args)
        self._whisper = Whisper(folder, parameters)
        self._capacity = int(parameters["queue_size"])
        self._block_seconds, self._most_seconds = float(parameters["block_seconds"]), float(parameters["most_seconds"])
        self._turns = Turns()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            reply = request.get_response_sender()
            try:
                self._accept(request, reply)
            except Exception as error:
                if not isinstance(error, RequestFailure):
                    log.exception("request %s failed", request.request_id())
                reply.send(error_response(error), _FINAL)

    def finalize(self) -> None:
        self._turns.stop()

    def _accept(self, request: Any, reply: Any) -> None:
        if read_parameters(request).get("probe"):
            reply.send(flags=_FINAL)
            return
        if len(self._turns) >= self._capacity:
            raise QueueFull
        (content,), (text,) = read_strings(request, "audio"), read_strings(request, "options")
        try:
            options = Options(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"Malformed options: {error}") from error
        job = Job(self._whisper, content, options, self._block_seconds, self._most_seconds)
        self._turns.add(_Work(job, reply, request.request_id()))


class _Work:
    """A job and the caller who waits for it."""

    def __init__(self, job: Job, reply: Any, request_id: str):
        self._job, self._reply, self._request_id = job, reply, request_id
        self.is_cancelled = reply.is_cancelled

    def steps(self) -> Iterator[None]:
        for segment in self._job.segments():
            if segment is not None:
                self._reply.send(_response(segment["text"], [segment]))
            yield
        ends = [
            string("language", self._job.language),
            pb_utils.Tensor("duration", np.array([self._job.duration], np.float32)),
        ]
        self._reply.send(_response("", [], *ends), _FINAL)

    def fail(self, error: BaseException) -> None:
        if not isinstance(error, RequestFailure):
            log.error("request %s failed", self._request_id, exc_info=error)
        self._reply.send(error_response(error), _FINAL)

    def abandon(self) -> None:
        self._reply.send(flags=_FINAL)


def _response(text: str, segments: list[dict[str, Any]], *more: Any) -> Any:
    tensors = [string("text_output", text), string("segments", json.dumps(segments, ensure_ascii=False)), *more]
    return pb_utils.InferenceResponse(tensors)
