"""The content of /actuator: health, information and single metrics, in the formats of Spring Boot Actuator."""

import platform
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from frontend.gateway.exposition import exposed_name

_DISK_THRESHOLD = 10 * 2**20
_BREAKER_STATES = ("open", "half_open", "closed")  # worst first
_LINKS = {
    "self": "",
    "health": "/health",
    "health-path": "/health/{*path}",
    "info": "/info",
    "metrics": "/metrics",
    "metrics-requiredMetricName": "/metrics/{requiredMetricName}",
    "prometheus": "/prometheus",
}


class InstanceView(Protocol):
    """The state of an instance: one model at one Triton."""

    @property
    def id(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def is_up(self) -> bool: ...
    @property
    def breaker_state(self) -> str:
        """`closed`, `open` or `half_open`."""
        ...

    @property
    def active(self) -> int: ...
    @property
    def weight(self) -> float: ...


def links(address: str) -> dict[str, Any]:
    """Return the links to the endpoints. `address` is the URL of the server."""
    entries = {name: {"href": f"{address}/actuator{path}", "templated": "{" in path} for name, path in _LINKS.items()}
    return {"_links": entries}


def health(instances: Sequence[InstanceView], folder: Path) -> dict[str, Any]:
    """Return the health of the server and its components. `folder` is on the disk whose space is checked."""
    components = {
        "diskSpace": _disk_space(folder),
        "modelRouter": _model_router(instances),
        "ping": {"status": "UP"},
    }
    is_up = all(component["status"] == "UP" for component in components.values())
    return {"status": _status(is_up), "components": components, "groups": ["liveness", "readiness"]}


def info() -> dict[str, Any]:
    """Return the name and version of the application, and what it was built with."""
    release = version("trident-serve")
    return {
        "app": {"name": "trident", "version": release},
        "build": {"artifact": "trident-serve", "name": "trident", "version": release},
        "python": {"version": platform.python_version()},
    }


def metric_names(families: Iterable[Metric]) -> list[str]:
    """Return the names of the metrics, with dots in place of underscores."""
    return sorted(_dotted(family) for family in families)


def describe_metric(families: Iterable[Metric], name: str, tags: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the values of a metric, summed over the series that have all of `tags`; None if there are none."""
    family = next((family for family in families if _dotted(family) == name), None)
    samples = [sample for sample in family.samples if tags.items() <= sample.labels.items()] if family else []
    if family is None or not samples:
        return None
    unit = next((unit for unit in ("seconds", "bytes") if unit in family.name.split("_")), None)
    return {
        "name": name,
        "description": family.documentation,
        "baseUnit": unit,
        "measurements": _measurements(family, samples, unit),
        "availableTags": _available_tags(samples, {*tags, "le"}),
    }


def _status(is_up: bool) -> str:
    return "UP" if is_up else "DOWN"


def _disk_space(folder: Path) -> dict[str, Any]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return {"status": "DOWN", "details": {"exists": False}}
    details = {"total": usage.total, "free": usage.free, "threshold": _DISK_THRESHOLD, "exists": True}
    return {"status": _status(usage.free >= _DISK_THRESHOLD), "details": details}


def _model_router(instances: Sequence[InstanceView]) -> dict[str, Any]:
    active = sum(instance.is_up for instance in instances)
    states = {instance.breaker_state for instance in instances}
    worst = next((state for state in _BREAKER_STATES if state in states), "closed")
    details = {
        "activeInstances": active,
        "totalInstances": len(instances),
        "circuitBreakerStatus": worst.upper(),
    }
    return {"status": _status(active > 0), "details": details}


def _dotted(family: Metric) -> str:
    return exposed_name(family).replace("_", ".")


def _measurements(family: Metric, samples: Iterable[Sample], unit: str | None) -> list[dict[str, Any]]:
    sums: dict[str, float] = {}
    for sample in samples:
        if statistic := _statistic(family, sample.name, unit):
            sums[statistic] = sums.get(statistic, 0) + sample.value
    return [{"statistic": statistic, "value": value} for statistic, value in sums.items()]


def _available_tags(samples: Iterable[Sample], excluded: Collection[str]) -> list[dict[str, Any]]:
    """Return the labels by which the samples differ or can be filtered further, with their values."""
    values: dict[str, set[str]] = {}
    for sample in samples:
        for tag in sample.labels.keys() - excluded:
            values.setdefault(tag, set()).add(sample.labels[tag])
    return [{"tag": tag, "values": sorted(values[tag])} for tag in sorted(values)]


def _statistic(family: Metric, sample: str, unit: str | None) -> str | None:
    """Return Spring's name for a sample's value. The buckets of a histogram have none."""
    if family.type == "gauge":
        return "VALUE"
    if family.type == "counter" or sample.endswith("_count"):
        return "COUNT"
    if sample.endswith("_sum"):
        return "TOTAL_TIME" if unit == "seconds" else "TOTAL"
    return None
