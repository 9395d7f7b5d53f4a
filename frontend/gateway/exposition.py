"""Renders the metrics in Prometheus' text format: those of the frontend, of its processes and of the Triton servers.

The functions take tens of milliseconds. Under gevent, they belong in the thread pool.
"""

import math
import os
from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from frontend import metrics
from frontend.gateway import jairouter_metrics, triton_metrics
from frontend.gateway.process_metrics import process_metrics
from frontend.metrics_folder import VARIABLE

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The version of the format that prometheus_client, too, sends to a scraper that does not ask for a later one."""


class _Collected:
    """Metrics in the form that prometheus_client's functions expect."""

    def __init__(self, families: Iterable[Metric]):
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def collect() -> list[Metric]:
    """Return the metrics of the frontend, which are sums over its processes, sorted by name."""
    several = VARIABLE in os.environ
    source = MultiProcessCollector(None) if several else metrics.REGISTRY  # type: ignore[no-untyped-call]
    families = [*source.collect(), *process_metrics()]
    for family in families:
        # NaN marks gauges of removed instances (see metrics.remove_instance).
        family.samples = [sample for sample in family.samples if not math.isnan(sample.value)]
    return sorted((family for family in families if family.samples), key=lambda family: family.name)


def render(triton_texts: Mapping[str, str]) -> bytes:
    """Return all metrics. `triton_texts` maps the address of each Triton that responds to the text of its metrics."""
    own = collect()
    reserved = {exposed_name(family) for family in own}
    return generate_latest(_Collected(own)) + triton_metrics.merge(triton_texts, reserved).encode()


def render_jairouter() -> bytes:
    """Return the frontend's metrics under JAiRouter's names."""
    return generate_latest(_Collected(jairouter_metrics.translate(collect())))


def exposed_name(family: Metric) -> str:
    """Return the name of a family in the text format. prometheus_client's own name of a counter lacks `_total`."""
    return f"{family.name}_total" if family.type == "counter" else family.name
