"""Counts the tokens, images and audio of a call, and measures how fast they come, also if the client disconnects."""

import time
from collections.abc import Mapping
from typing import Any

from frontend import metrics
from frontend.request_usage import request_usage
from frontend.triton.model import Model


class Usage:
    """The tokens of one call so far."""

    def __init__(self, model: Model, service: str):
        self._model, self._service = model, service
        self._request = request_usage()
        self._is_cumulative = not model.uses_vllm  # on vLLM, a response reports only its own tokens
        self._started = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        self._input = self._output = self._first_output = self._images = 0
        self._audio_seconds = 0.0
        self._first_at: float | None = None
        self._last_at = 0.0

    def add(self, response: Mapping[str, Any]) -> None:
        """Count the tokens that a response reports."""
        self._last_at = time.monotonic()
        self._input = response.get("num_input_tokens", self._input)
        tokens = response.get("num_output_tokens", 0)
        self._output = max(self._output, tokens) if self._is_cumulative else self._output + tokens
        self._images += "image_output" in response and "partial" not in response
        self._audio_seconds = float(response.get("duration", self._audio_seconds))
        if self._first_at is None:
            self._first_at, self._first_output = self._last_at, self._output

    def record(self, instance: str) -> None:
        """Record the usage of the call, which has ended at an instance, and begin anew."""
        self._request.add_tokens(self._input, self._output, instance)
        self._request.images += self._images
        self._request.audio_seconds += self._audio_seconds
        if self._input:
            metrics.record_tokens(self._model.id, "input", self._input)
        if self._output:
            metrics.record_tokens(self._model.id, "output", self._output)
        # A response that is not streamed says nothing about the first token.
        if self._service == "chat" and self._first_at is not None and self._output > self._first_output:
            metrics.record_first_token(self._service, self._model.id, self._first_at - self._started)
            seconds = (self._last_at - self._first_at) / (self._output - self._first_output)
            metrics.record_token_time(self._service, self._model.id, seconds)
        self._begin()
