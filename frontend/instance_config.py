"""The configuration of instances: which models Trident uses at which Triton, as the settings file lists them."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_HTTP_PORT = 8000
_MAX_WEIGHT = 1000.0
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?/?")
_KEYS = ("name", "base_url", "weight", "enabled", "grpc_port", "metrics_port")


@dataclass(frozen=True)
class TritonAddress:
    """The address of one Triton: its host, and the ports of its three servers."""

    host: str
    http_port: int
    grpc_port: int
    metrics_port: int

    def __post_init__(self) -> None:
        for port in (self.http_port, self.grpc_port, self.metrics_port):
            if not 1 <= port <= 65535:
                raise ValueError(f"the port {port} is not from 1 to 65535")

    @property
    def base_url(self) -> str:
        """The URL of Triton's HTTP server."""
        return f"http://{self._url_host}:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Host and port of Triton's gRPC server."""
        return f"{self._url_host}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """The URL of Triton's metrics."""
        return f"http://{self._url_host}:{self.metrics_port}/metrics"

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine's loopback address."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def _url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class InstanceConfig:
    """One entry of the setting `instances`: the model `name`, or all models if it is empty, at one Triton."""

    address: TritonAddress
    name: str = ""
    weight: float = 1.0
    """The share of the requests, relative to the other instances of the same model."""
    enabled: bool = True

    @property
    def id(self) -> str:
        """The ID of the instance; without a name, that of all instances at the address."""
        return f"{self.name}@{self.address.base_url}"

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as the settings file has it."""
        address = self.address
        ports = {"grpc_port": address.grpc_port, "metrics_port": address.metrics_port}
        return {"name": self.name, "base_url": address.base_url, "weight": self.weight, "enabled": self.enabled} | ports


def parse_instances(entries: Iterable[Any]) -> tuple[InstanceConfig, ...]:
    """Return the configurations for entries of the settings file, or for texts: `NAME@URL`, `URL`, or entries in JSON.

    Raise ValueError, which says what is wrong.
    """
    found: list[Any] = []
    for entry in entries:
        if not isinstance(entry, str):
            found.append(entry)
        elif entry.lstrip().startswith(("[", "{")):
            try:
                parsed = json.loads(entry)
            except json.JSONDecodeError as error:
                raise ValueError(f"not valid JSON: {error}") from None
            found += parsed if isinstance(parsed, list) else [parsed]
        elif entry:
            name, _, url = entry.rpartition("@")
            if "://" in name:
                raise ValueError("'base_url' must not contain a user name or password")
            found.append({"name": name, "base_url": url})
    return tuple(map(parse_instance, found))


def parse_instance(entry: Any) -> InstanceConfig:
    """Return the configuration for an entry of the settings file. Raise ValueError, which says what is wrong."""
    if isinstance(entry, InstanceConfig):
        return entry
    if not isinstance(entry, Mapping):
        raise ValueError(f"{entry!r} is not a table")
    if unknown := sorted(entry.keys() - set(_KEYS)):
        raise ValueError(f"unknown key '{unknown[0]}'")
    name, weight, enabled = entry.get("name", ""), entry.get("weight", 1.0), entry.get("enabled", True)
    if not isinstance(name, str):
        raise ValueError("'name' is not a string")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= _MAX_WEIGHT:
        raise ValueError(f"'weight' must be a number above 0, up to {_MAX_WEIGHT:.0f}, not {weight!r}")
    if not isinstance(enabled, bool):
        raise ValueError("'enabled' must be true or false")
    address = parse_base_url(entry.get("base_url"), entry.get("grpc_port"), entry.get("metrics_port"))
    return InstanceConfig(address, name, float(weight), enabled)


def parse_base_url(url: Any, grpc_port: Any = None, metrics_port: Any = None) -> TritonAddress:
    """Return the address for the URL of Triton's HTTP server, or of its gRPC server (`grpc://`).

    The other ports follow, as in Triton's defaults (8000, 8001 and 8002), unless they are given. Raise ValueError.
    """
    if not isinstance(url, str) or not url:
        raise ValueError("'base_url' is missing")
    if "@" in url:
        raise ValueError("'base_url' must not contain a user name or password")
    match = _URL.fullmatch(url)
    if not match or match["scheme"] not in ("http", "grpc"):
        raise ValueError(f"'base_url' must be http://HOST:PORT or grpc://HOST:PORT, not '{url[:200]}'")
    is_grpc = match["scheme"] == "grpc"
    port = int(match["port"] or DEFAULT_HTTP_PORT + is_grpc)
    for key, value in (("grpc_port", grpc_port), ("metrics_port", metrics_port)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"'{key}' is not an integer")
    if is_grpc and grpc_port not in (None, port):
        raise ValueError("'grpc_port' contradicts 'base_url'")
    http = port - 1 if is_grpc else port
    return TritonAddress(match["host"].strip("[]").lower(), http, grpc_port or http + 1, metrics_port or http + 2)


def group_by_address(instances: Iterable[InstanceConfig]) -> dict[TritonAddress, list[InstanceConfig]]:
    """Return the instances of each Triton, in the order in which they are given."""
    found: dict[TritonAddress, list[InstanceConfig]] = {}
    for instance in instances:
        found.setdefault(instance.address, []).append(instance)
    return found


def require_distinct(instances: tuple[InstanceConfig, ...]) -> None:
    """Raise ValueError if an instance occurs twice, or if a Triton has two sets of ports."""
    seen: dict[str, InstanceConfig] = {}
    for instance in instances:
        if instance.id in seen:
            raise ValueError(f"the instance '{instance.id}' occurs twice")
        seen[instance.id] = instance
    for instance in instances:
        base_url = instance.address.base_url
        if instance.name and f"@{base_url}" in seen:
            raise ValueError(f"all models at {base_url} are instances already, so '{instance.name}' cannot be another")
    ports = {instance.address.base_url: instance.address for instance in instances}
    for instance in instances:
        if instance.address != ports[instance.address.base_url]:
            raise ValueError(f"the instances at {instance.address.base_url} have different ports")
