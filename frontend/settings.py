"""Defines and loads the settings. Each setting is a flag, an environment variable and a key in the settings file.

Flags override environment variables, and environment variables override the file. This module imports only the
standard library and two small modules of the project, so that `--help` is fast.
"""

import dataclasses
import ipaddress
import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from contract.paths import default_cache, default_data, default_model_repository
from frontend.aliases import DEFAULT_ALIASES
from frontend.instance_config import InstanceConfig, TritonAddress, parse_instances, require_distinct

GROUPS = ("serving", "models", "traffic", "limits", "security", "gateway", "storage", "logging")

SERVICES = ("chat", "embedding", "rerank", "tts", "stt", "imgGen", "imgEdit", "background", "ocr")
"""The services, for which a strategy of load balancing can be set."""

STRATEGIES = ("random", "round-robin", "least-connections", "ip-hash", "consistent-hash", "prefix-affinity")
"""The strategies of load balancing."""

_PREFIX = "TRIDENT_"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Settings whose values may contain a password.
_SECRET = ("database_url", "redis_url", "otlp_endpoint")
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class SettingsError(ValueError):
    """A setting or the settings file is invalid. The message names the flag, variable or key of an invalid value."""


def _option(
    default: Any,
    group: str,
    help: str,
    metavar: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: str | None = None,
) -> Any:
    metadata: dict[str, Any] = {
        "group": group,
        "help": help,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
    }
    metadata |= {"choices": choices, "pattern": pattern}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of all settings. For example, the field `max_body_bytes` is set by the flag `--max-body-bytes`, the
    environment variable TRIDENT_MAX_BODY_BYTES or the key `max_body_bytes` in `trident.toml`.

    Raises SettingsError if a value is invalid.
    """

    host: str = _option("127.0.0.1", "serving", "address the API listens on", "ADDRESS", pattern=r".+")
    port: int = _option(10100, "serving", "port the API listens on", "PORT", minimum=1, maximum=65535)
    workers: int = _option(1, "serving", "number of frontend processes", "N", minimum=1)
    public_url: str | None = _option(
        None,
        "serving",
        "base URL of the API as clients see it, for the URLs of generated images and the Host header",
        "URL",
        pattern=r"https?://[\w.-]+(:\d+)?(/[^\s?#]*)?|https?://\[[0-9a-fA-F:.]+\](:\d+)?(/[^\s?#]*)?",
    )
    triton: str | None = _option(
        None,
        "serving",
        "gRPC address of a running Triton; if omitted, Trident starts one",
        "HOST:PORT",
        pattern=r".*:\d+",
    )
    triton_http_port: int = _option(
        None,
        "serving",
        "Triton's HTTP port (default: --port + 1; with --triton, its gRPC port - 1)",
        "PORT",
        minimum=1,
        maximum=65535,
    )
    triton_grpc_port: int = _option(
        None,
        "serving",
        "gRPC port of the Triton that Trident starts (default: --port + 2)",
        "PORT",
        minimum=1,
        maximum=65535,
    )
    triton_metrics_port: int = _option(
        None,
        "serving",
        "metrics port of the Triton that Trident starts (default: --port + 3)",
        "PORT",
        minimum=1,
        maximum=65535,
    )
    instances: tuple[InstanceConfig, ...] = _option(
        (),
        "traffic",
        "models at running Tritons: NAME@URL, URL, or entries as in docs/gateway.md",
        "JSON",
    )
    discover: str | None = _option(
        None,
        "traffic",
        "DNS name whose addresses are running Tritons, with their HTTP port; followed while Trident runs",
        "HOST:PORT",
        pattern=r"[A-Za-z0-9._-]+:\d+",
    )
    load_balance: dict[str, str] = _option(
        dict,
        "traffic",
        "strategy of each service: {service: strategy}; see docs/gateway.md (default: least-connections)",
        "JSON",
    )
    failure_threshold: int = _option(
        5, "traffic", "failures in a row after which an instance gets no more requests", "N", minimum=1
    )
    success_threshold: int = _option(
        2, "traffic", "successful trial requests after which it gets all requests again", "N", minimum=1
    )
    breaker_seconds: float = _option(
        60.0, "traffic", "time until the first trial request; doubles with each failure", "SECONDS", minimum=0.001
    )
    recovery_seconds: float = _option(
        15.0,
        "traffic",
        "time that requests wait for a model whose process has died, before they fail",
        "SECONDS",
        minimum=0,
    )
    instance_drain_seconds: float = _option(
        300.0,
        "traffic",
        "time that requests in progress get to finish when an instance is removed or loaded again",
        "SECONDS",
        minimum=0,
    )
    health_seconds: float = _option(
        5.0, "traffic", "time between two health checks of an instance", "SECONDS", minimum=0.05
    )
    slow_start_seconds: float = _option(
        30.0, "traffic", "time in which a new or recovered instance reaches its full share", "SECONDS", minimum=0
    )
    models: tuple[str, ...] = _option(
        (), "models", "models to load; the first one of each task is its default; repeatable", "NAME"
    )
    unknown_model: str = _option(
        "error",
        "models",
        "response to an unknown model name: an error (404), or the task's default model",
        choices=("error", "default"),
    )
    generation_defaults: str = _option(
        "model",
        "models",
        "sampling parameters of requests that omit them: the values that the model's publisher recommends, or OpenAI's",
        choices=("model", "openai"),
    )
    engine: str = _option(
        "auto",
        "models",
        "engine of chat models; auto: that of the last export, or else the faster one on this CPU",
        choices=("auto", "openvino", "llamacpp", "llamacpp-vulkan", "llamacpp-cuda"),
    )
    precision: str = _option(
        "auto",
        "models",
        "weights of models converted from safetensors; auto: int8, or int4 for lack of memory, or f32 for quality",
        choices=("auto", "int8", "int4", "f16", "f32"),
    )
    hub: str = _option(
        "huggingface",
        "models",
        "hub of models named USER/REPO",
        choices=("huggingface", "modelscope"),
    )
    kv_cache_gb: float = _option(
        None,
        "models",
        "size of each chat model's KV cache; if omitted, it depends on the machine's memory",
        "GB",
        minimum=0.01,
    )
    context_length: int = _option(
        None, "models", "maximum tokens of a chat request and its response (default: the model's own)", "N", minimum=16
    )
    max_num_seqs: int = _option(
        None, "models", "maximum chat requests computed at once (default: at most 64, by the KV cache)", "N", minimum=1
    )
    models_on_demand: bool = _option(
        False, "models", "load further models of the repository when they are first requested"
    )
    keep_alive: float = _option(
        300.0,
        "models",
        "time without a request after which a model that was loaded on demand is unloaded; -1: only if memory is short",
        "SECONDS",
        minimum=-1,
    )
    max_memory_gb: float = _option(
        None, "limits", "memory for models, Triton and the frontend (default: the machine's)", "GB", minimum=0.1
    )
    aliases: dict[str, str] = _option(
        dict,
        "models",
        "additional names for models: {alias: model or task}; an empty string removes a built-in alias",
        "JSON",
    )
    transcribe_audio: bool = _option(False, "models", "transcribe audio in chats with models that do not accept audio")
    max_body_bytes: int = _option(5_000_000, "limits", "maximum size of a JSON body", "BYTES", minimum=1)
    max_upload_bytes: int = _option(
        100_000_000, "limits", "maximum size of a file, uploaded or fetched", "BYTES", minimum=1
    )
    request_timeout: float = _option(
        600.0,
        "limits",
        "maximum time for a response; for speech, transcription and images, for each part of it",
        "SECONDS",
        minimum=0.001,
    )
    shutdown_delay: float = _option(
        0.0,
        "limits",
        "time for which the frontend still serves at shutdown, while it reports that it is not ready",
        "SECONDS",
        minimum=0,
    )
    drain_seconds: int = _option(1, "limits", "time for running requests to finish at shutdown", "SECONDS", minimum=0)
    allow_files: tuple[Path, ...] = _option(
        (), "security", "folder whose files requests may read through file:// URLs; repeatable", "FOLDER"
    )
    allow_hosts: tuple[str, ...] = _option(
        (),
        "security",
        "host that http(s):// URLs in requests may refer to even if its address is private; repeatable",
        "HOST",
    )
    allow_origins: tuple[str, ...] = _option(
        (),
        "security",
        "allow web pages of this origin to use the API (CORS), * for all; repeatable",
        "ORIGIN",
        pattern=r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^/\s*@?#]+",
    )
    trusted_hosts: tuple[str, ...] = _option(
        (),
        "security",
        "name that the Host header may have besides IP addresses and localhost; repeatable",
        "HOST",
        pattern=r"[^\s:/@*\[\]]+",
    )
    trusted_proxies: tuple[str, ...] = _option(
        (),
        "security",
        "address or network of a proxy whose X-Forwarded-For names the client; repeatable",
        "ADDRESS",
    )
    open_metrics: bool = _option(
        False, "security", "serve /metrics and /actuator/prometheus without a key, even if there are API keys"
    )
    allow_remote_shutdown: bool = _option(False, "security", "accept POST /shutdown from any address")
    admin_key_file: Path = _option(
        None, "gateway", "file with an admin key, which is valid besides stored ones", "FILE"
    )
    database_url: str = _option(
        None,
        "gateway",
        "store of API keys and configuration: postgresql://… (default: an SQLite file in --data)",
        "URL",
        pattern=r"sqlite:///.+|postgresql://.*",
    )
    pepper_file: Path = _option(
        None, "gateway", "secret that API keys are hashed with (default: a file in --data, made when needed)", "FILE"
    )
    redis_url: str = _option(
        None,
        "gateway",
        "Redis or Valkey in which processes and machines share their limits: redis://HOST:PORT/0",
        "URL",
        pattern=r"(redis|rediss|unix)://.*",
    )
    rate_limits: dict[str, Any] = _option(
        dict, "gateway", "limits of requests, tokens and parallel requests; see docs/limits.md", "JSON"
    )
    otlp_endpoint: str = _option(
        None, "gateway", "OpenTelemetry collector that gets traces: http://HOST:4318", "URL", pattern=r"https?://.*"
    )
    data: Path = _option(
        default_data,
        "storage",
        "folder for what cannot be made again: API keys, versions of the configuration",
        "FOLDER",
    )
    model_repository: Path = _option(
        default_model_repository, "storage", "folder that Triton loads models from", "FOLDER"
    )
    cache: Path = _option(
        default_cache, "storage", "folder for downloads, conversions and the state of running instances", "FOLDER"
    )
    image_seconds: float = _option(
        3600.0, "storage", "time to live of stored images and their URLs", "SECONDS", minimum=0.001
    )
    image_bytes: int = _option(
        1_000_000_000, "storage", "maximum total size of stored images; the oldest are evicted", "BYTES", minimum=1
    )
    response_seconds: float = _option(3600.0, "storage", "time to live of stored responses", "SECONDS", minimum=0.001)
    response_bytes: int = _option(
        1_000_000_000, "storage", "maximum total size of stored responses; the oldest are evicted", "BYTES", minimum=1
    )
    log_level: str = _option(
        "info", "logging", "minimum level of log messages", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _option("json", "logging", "format of the access log", choices=("json", "text"))

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self._set(field.name, _checked(field, hints[field.name], value))
        self._check_traffic()
        # By default, Triton's HTTP, gRPC and metrics ports are the three that follow --port. With --triton, the HTTP
        # port is one below Triton's gRPC port, as in Triton's own defaults.
        first = int(self.triton.rpartition(":")[2]) - 1 if self.triton else self.port + 1
        for offset, name in enumerate(("triton_http_port", "triton_grpc_port", "triton_metrics_port")):
            if getattr(self, name) is None:
                self._set(name, first + offset)
        if self.models_on_demand and not self.starts_triton:
            raise SettingsError("--models-on-demand does not apply to a Triton that runs elsewhere (--triton)")
        # Store hosts in lower case and without brackets, as urlsplit returns them.
        self._set("allow_hosts", tuple(host.lower().strip("[]") for host in self.allow_hosts))
        self._set("trusted_hosts", tuple(host.lower().rstrip(".") for host in self.trusted_hosts))
        self._set("trusted_proxies", tuple(map(_network, self.trusted_proxies)))
        self._set("allow_origins", tuple(map(_normal_origin, self.allow_origins)))
        ports = [self.port, self.triton_http_port, self.triton_grpc_port, self.triton_metrics_port]
        if max(ports) > 65535 or min(ports) < 1 or (self.starts_triton and len(set(ports)) < len(ports)):
            raise SettingsError(
                "--port and Triton's HTTP, gRPC and metrics ports must be distinct and from 1 to 65535, not "
                + ", ".join(map(str, ports))
            )

    def _check_traffic(self) -> None:
        if self.triton and (self.instances or self.discover):
            raise SettingsError(f"--triton and {'--instances' if self.instances else '--discover'} exclude each other")
        if self.discover and not 1 <= int(self.discover.rpartition(":")[2]) <= 65533:
            raise SettingsError("--discover: the port must be from 1 to 65533, as Triton's other two follow it")
        try:
            require_distinct(self.instances)
        except ValueError as error:
            raise SettingsError(f"instances: {error}") from None
        for service, strategy in self.load_balance.items():
            if service not in SERVICES:
                raise SettingsError(f"load_balance: '{service}' is not one of {', '.join(SERVICES)}")
            if (normal := strategy.lower().replace("_", "-")) not in STRATEGIES:
                raise SettingsError(f"load_balance: '{strategy}' is not one of {', '.join(STRATEGIES)}")
            if normal == "prefix-affinity" and service != "chat":
                raise SettingsError(f"load_balance: prefix-affinity does not apply to {service}, only to chat")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def starts_triton(self) -> bool:
        """Whether Trident starts a Triton of its own."""
        return self.triton is None and not self.instances and not self.discover

    @property
    def all_instances(self) -> tuple[InstanceConfig, ...]:
        """The configured instances, or else all models at the one Triton that Trident starts or `triton` names.

        With `discover`, the launcher finds further ones.
        """
        if self.discover:
            return self.instances
        host, _, grpc_port = self.triton_address.rpartition(":")
        ports = (self.triton_http_port, int(grpc_port), self.triton_metrics_port)
        return self.instances or (InstanceConfig(TritonAddress(host.strip("[]"), *ports)),)

    @property
    def all_aliases(self) -> dict[str, str]:
        """The default and the configured aliases. A configured alias replaces the default alias of the same name.

        If the configured alias is empty, it removes the default alias.
        """
        return with_default_aliases(self.aliases)

    @property
    def address(self) -> str:
        """The address and the port that the API listens on, as they are written in a URL."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def triton_address(self) -> str:
        """The address of Triton's gRPC endpoint."""
        return self.triton or f"127.0.0.1:{self.triton_grpc_port}"

    @property
    def data_folder(self) -> Path:
        """The folder for the data of this instance. It is named after the instance's port."""
        return self.data / str(self.port)

    @property
    def store_url(self) -> str:
        """The URL of the store of API keys and versions of the configuration."""
        return self.database_url or f"sqlite:///{self.data_folder / 'trident.db'}"

    @property
    def run_folder(self) -> Path:
        """The folder for the files that this instance needs while it runs. It is named after the instance's port."""
        return self.cache / "run" / str(self.port)

    @property
    def served_repository(self) -> Path:
        """The model repository that Triton loads, which the launcher writes."""
        return self.run_folder / "triton" / "models"

    @property
    def pepper_path(self) -> Path:
        """The file with the secret that API keys are hashed with."""
        return self.pepper_file or self.data_folder / "pepper"

    @property
    def keys_file(self) -> Path:
        """The file that exists while there are API keys."""
        return self.run_folder / "keys_in_use"

    @property
    def local_key_file(self) -> Path:
        """The file with the key of Trident's own programs on this machine, which the launcher writes."""
        return self.run_folder / "local_key"

    @property
    def draining_file(self) -> Path:
        """The file that exists while the frontend shuts down."""
        return self.run_folder / "draining"

    @property
    def metrics_folder(self) -> Path:
        """The folder in which the frontend's processes share their metrics."""
        return self.run_folder / "metrics"

    @property
    def footprints_file(self) -> Path:
        """The file with the memory that each model needs, which the launcher writes."""
        return self.run_folder / "triton" / "footprints.json"

    @property
    def on_demand_folder(self) -> Path:
        """The folder in which the workers note which models are in use, and lock the loading of models."""
        return self.run_folder / "on_demand"

    @property
    def incarnations_file(self) -> Path:
        """The file in which the launcher records that it starts a new process of a model."""
        return self.run_folder / "triton" / "incarnations.json"

    @property
    def hung_folder(self) -> Path:
        """The folder in which the frontend names models whose process does not respond, for the launcher."""
        return self.run_folder / "triton" / "hung"

    @property
    def instances_file(self) -> Path:
        """The file with the instances, which exists if they have changed since the start. The launcher writes it."""
        return self.run_folder / "instances.json"

    @property
    def image_folder(self) -> Path:
        """The folder for stored images."""
        return self.run_folder / "images"

    @property
    def response_folder(self) -> Path:
        """The folder for stored responses."""
        return self.run_folder / "responses"

    @property
    def pid_file(self) -> Path:
        """The file with the launcher's process ID."""
        return self.run_folder / "trident.pid"

    @staticmethod
    def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
        """Return environment variables without those of settings that may contain a password."""
        hidden = {_PREFIX + name.upper() for name in _SECRET}
        return {name: value for name, value in environment.items() if name not in hidden}

    def as_environment(self) -> dict[str, str]:
        """Return environment variables that make load_settings return these settings in a child process."""
        return {
            _PREFIX + field.name.upper(): _as_text(getattr(self, field.name)) for field in dataclasses.fields(self)
        } | {"TRIDENT_CONFIG": os.devnull}


def with_default_aliases(aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the default aliases and these, which replace default ones of the same name, or remove them if empty."""
    return {name: target for name, target in (DEFAULT_ALIASES | dict(aliases)).items() if target}


def settings_path() -> Path:
    """Return the path of the settings file, which may not exist."""
    return Path(os.environ.get("TRIDENT_CONFIG") or "trident.toml")


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings from `flags` (field name → value), the environment and the settings file.

    The file is $TRIDENT_CONFIG if that variable is set, otherwise trident.toml in the current folder if there is one.
    Raises SettingsError.
    """
    path = settings_path()
    if os.environ.get("TRIDENT_CONFIG") and not path.exists():
        raise SettingsError(f"TRIDENT_CONFIG: '{path}' does not exist")
    values = _read_file(path)
    for field in dataclasses.fields(Settings):
        variable = _PREFIX + field.name.upper()
        if os.environ.get(variable):
            values[field.name] = _Given(variable, os.environ[variable])
        if flags and flags.get(field.name) is not None:
            values[field.name] = _Given("--" + field.name.replace("_", "-"), flags[field.name])
    return Settings(**values)


@dataclass(frozen=True)
class _Given:
    """A value, and the name of the flag, variable or key that set it, for error messages."""

    name: str
    value: Any


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    known = {field.name for field in dataclasses.fields(Settings)}
    if unknown := sorted(table.keys() - known):
        raise SettingsError(f"{path}: unknown key '{unknown[0]}'")
    return {name: _Given(f"{name} in {path}", value) for name, value in table.items()}


def _normal_origin(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, and without the scheme's default port."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ''))}" if host else origin


def _network(text: str) -> str:
    """Return an address or a network in its normal form."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}") from None


def _checked(field: "dataclasses.Field[Any]", kind: Any, given: Any) -> Any:
    """Return a value converted to the field's type. Raises SettingsError if it is invalid."""
    name, value = (given.name, given.value) if isinstance(given, _Given) else (field.name, given)
    try:
        value = _convert(kind, value)
    except json.JSONDecodeError:
        raise SettingsError(f"{name}: '{value}' is not a valid {_expected(field, kind)}") from None
    except ValueError as error:
        expected = f"'{value}' is not a valid {_expected(field, kind)}"
        raise SettingsError(f"{name}: {error if kind == tuple[InstanceConfig, ...] else expected}") from None
    except (TypeError, KeyError, AttributeError, OverflowError):
        raise SettingsError(f"{name}: '{value}' is not a valid {_expected(field, kind)}") from None
    bounds = field.metadata
    if bounds["choices"] and value not in bounds["choices"]:
        raise SettingsError(f"{name}: '{value}' is not one of {', '.join(bounds['choices'])}")
    if bounds["minimum"] is not None and not value >= bounds["minimum"]:
        raise SettingsError(f"{name}: {value} is below the minimum of {bounds['minimum']}")
    if bounds["maximum"] is not None and value > bounds["maximum"]:
        raise SettingsError(f"{name}: {value} exceeds the maximum of {bounds['maximum']}")
    for text in (value if isinstance(value, tuple) else (value,)) if bounds["pattern"] else ():
        if not re.fullmatch(bounds["pattern"], text):
            shown = "the value" if field.name in _SECRET else f"'{text}'"
            raise SettingsError(f"{name}: {shown} is not a valid {bounds['metavar']}")
    return value


def _expected(field: "dataclasses.Field[Any]", kind: Any) -> str:
    """Return the kind of value that an option accepts, such as `integer` or `FOLDER`, for error messages."""
    names = {bool: "boolean (true or false)", int: "integer", float: "number"}
    return names.get(kind) or ("JSON object" if get_origin(kind) is dict else field.metadata["metavar"] or "value")


def _convert(kind: Any, value: Any) -> Any:
    if kind is bool:
        return value if isinstance(value, bool) else _WORDS[value.lower()]
    if kind in (int, float):
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    if kind is Path:
        return Path(value).expanduser().absolute()
    if kind == tuple[InstanceConfig, ...]:
        return parse_instances([value] if isinstance(value, str) else value)
    if get_origin(kind) is tuple:
        return tuple(get_args(kind)[0](name) for name in _split(value))
    if get_origin(kind) is dict:
        table = json.loads(value) if isinstance(value, str) else value
        if get_args(kind)[1] is Any:
            return dict(table)
        return {str(name): str(target) for name, target in dict(table).items()}
    return str(value)


def _split(value: Any) -> list[str]:
    """Return the names in a string, or in each string of a tuple.

    Spaces or commas separate names. A name that contains spaces or commas must be in double quotes: `a "b c",d` has
    three names. Items of a list (from the settings file) and Paths are not split.
    """
    if isinstance(value, list):
        return [str(item) for item in value if item]
    if isinstance(value, tuple):
        return [name for item in value for name in ([str(item)] if isinstance(item, Path) else _split(str(item)))]
    names = shlex.shlex(value, posix=True)
    names.whitespace, names.whitespace_split = ", \t\n", True
    names.quotes, names.commenters = '"', ""
    return [name for name in names if name]


def _as_text(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], InstanceConfig):
        return json.dumps([each.as_dict() for each in value])
    if isinstance(value, tuple):
        return " ".join('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in value)
    return json.dumps(value) if isinstance(value, dict) else "" if value is None else str(value)
