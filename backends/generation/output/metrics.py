"""Publishes the metrics of a generation model on Triton's metrics endpoint."""

import time

import triton_python_backend_utils as pb_utils

from backends.generation.engine.ipc import Gauges

_PUBLISH_SECONDS = 1.0


class Metrics:
    """The metrics of a model. They are published at most once a second: each update sends a message to Triton."""

    def __init__(self, model: str):
        self._labels = {"model": model}
        self._families: list[pb_utils.MetricFamily] = []  # Triton drops a metric family that Python does not reference
        self._gauges = {
            "running": self._metric("GAUGE", "trident_generation_running", "Requests in the last step"),
            "waiting": self._metric("GAUGE", "trident_generation_waiting", "Requests waiting for a step"),
            "cache_usage": self._metric(
                "GAUGE", "trident_generation_cache_usage", "Used fraction of the KV cache, 0 to 1"
            ),
        }
        self._prompt_tokens = _Counter(
            self._metric("COUNTER", "trident_generation_prompt_tokens_total", "Prompt tokens processed")
        )
        self._output_tokens = _Counter(
            self._metric("COUNTER", "trident_generation_output_tokens_total", "Output tokens generated")
        )
        self._violations = _Counter(
            self._metric(
                "COUNTER", "trident_generation_schema_mismatch_total", "Complete outputs that violate their constraint"
            )
        )
        self._published = 0.0

    def count(self, prompt_tokens: int, output_tokens: int) -> None:
        """Add the tokens of a finished response. Not thread-safe: only the thread of `Sender` may call this method."""
        self._prompt_tokens.total += prompt_tokens
        self._output_tokens.total += output_tokens

    def count_violation(self) -> None:
        """Count an output that violates its constraint. Not thread-safe, like `count`."""
        self._violations.total += 1

    def publish(self, gauges: Gauges) -> None:
        """Publish the metrics to Triton, unless they were published less than a second ago."""
        if time.monotonic() - self._published < _PUBLISH_SECONDS:
            return
        self._published = time.monotonic()
        for name, value in gauges._asdict().items():
            self._gauges[name].set(value)
        self._prompt_tokens.publish()
        self._output_tokens.publish()
        self._violations.publish()

    def _metric(self, kind: str, name: str, description: str) -> "pb_utils.Metric":
        family = pb_utils.MetricFamily(name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind))
        self._families.append(family)
        return family.Metric(labels=self._labels)


class _Counter:
    """A total count, and the part of the count that has been published."""

    def __init__(self, metric: "pb_utils.Metric"):
        self._metric, self.total, self._sent = metric, 0, 0

    def publish(self) -> None:
        total = self.total
        if total != self._sent:
            self._metric.increment(total - self._sent)
            self._sent = total
