"""The one settings object: a table of options, each a flag, an environment variable and a key of a file.

A flag wins over a variable, a variable over the file. Imports the standard library only, so that `--help` is quick.
"""

import dataclasses
import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from contract.paths import default_cache, default_model_repository
from frontend.aliases import DEFAULT_ALIASES

GROUPS = ("serving", "models", "limits", "security", "storage", "logging")

_PREFIX = "TRIDENT_"
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class SettingsError(ValueError):
    """A setting is wrong. The message names it as it was given."""


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
    """Every option. `--max-body-bytes` is TRIDENT_MAX_BODY_BYTES, and max_body_bytes in `trident.toml`.

    Raises SettingsError for a value that is out of bounds.
    """

    host: str = _option("127.0.0.1", "serving", "address the API listens on", "ADDRESS", pattern=r".+")
    port: int = _option(10100, "serving", "port the API listens on", "PORT", minimum=1, maximum=65535)
    workers: int = _option(1, "serving", "frontend processes", "N", minimum=1)
    public_url: str | None = _option(
        None,
        "serving",
        "where clients reach the API, for the URLs of generated images",
        "URL",
        pattern=r"https?://[^\s?#]+",
    )
    triton: str | None = _option(
        None,
        "serving",
        "gRPC address of a Triton that runs elsewhere; none: start one here",
        "HOST:PORT",
        pattern=r".*:\d+",
    )
    triton_http_port: int = _option(
        None,
        "serving",
        "Triton's HTTP port; default: --port plus 1, or with --triton the port before its gRPC port",
        "PORT",
        minimum=1,
        maximum=65535,
    )
    triton_grpc_port: int = _option(
        None, "serving", "embedded Triton's gRPC port; default: --port plus 2", "PORT", minimum=1, maximum=65535
    )
    triton_metrics_port: int = _option(
        None, "serving", "embedded Triton's metrics port; default: --port plus 3", "PORT", minimum=1, maximum=65535
    )
    models: tuple[str, ...] = _option((), "models", "models to load; the first of a task is its default", "NAME")
    unknown_model: str = _option(
        "error", "models", "an unknown model name: a 404, or the task's default model", choices=("error", "default")
    )
    aliases: dict[str, str] = _option(
        dict, "models", "more names for models: {name: model or task}; an empty value removes a name", "JSON"
    )
    transcribe_audio: bool = _option(False, "models", "transcribe audio in chats with models that do not accept audio")
    max_body_bytes: int = _option(5_000_000, "limits", "maximum size of a JSON body", "BYTES", minimum=1)
    max_upload_bytes: int = _option(100_000_000, "limits", "maximum size of an uploaded file", "BYTES", minimum=1)
    request_timeout: float = _option(600.0, "limits", "maximum time of one request", "SECONDS", minimum=0.001)
    drain_seconds: int = _option(1, "limits", "time that running requests get at shutdown", "SECONDS", minimum=0)
    allow_files: tuple[Path, ...] = _option(
        (), "security", "folder below which file:// URLs in requests may be read", "FOLDER"
    )
    allow_hosts: tuple[str, ...] = _option(
        (), "security", "host that http:// URLs in requests may name although its address is private", "HOST"
    )
    allow_remote_shutdown: bool = _option(False, "security", "accept POST /shutdown from any address")
    model_repository: Path = _option(default_model_repository, "storage", "folder of the models", "FOLDER")
    cache: Path = _option(default_cache, "storage", "folder of downloads, conversions and running instances", "FOLDER")
    image_seconds: float = _option(
        3600.0, "storage", "time to live of generated images' URLs", "SECONDS", minimum=0.001
    )
    image_bytes: int = _option(
        1_000_000_000, "storage", "maximum total size of stored images; the oldest are evicted", "BYTES", minimum=1
    )
    response_seconds: float = _option(3600.0, "storage", "time to live of stored responses", "SECONDS", minimum=0.001)
    response_bytes: int = _option(
        1_000_000_000, "storage", "maximum total size of stored responses; the oldest are evicted", "BYTES", minimum=1
    )
    log_level: str = _option(
        "info", "logging", "least important messages to log", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _option("json", "logging", "form of the access log", choices=("json", "text"))

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self._set(field.name, _checked(field, hints[field.name], value))
        # Beside --port; of a Triton that runs elsewhere, which has its HTTP port before its gRPC port, beside that one.
        first = int(self.triton.rpartition(":")[2]) - 1 if self.triton else self.port + 1
        for offset, name in enumerate(("triton_http_port", "triton_grpc_port", "triton_metrics_port")):
            if getattr(self, name) is None:
                self._set(name, first + offset)
        self._set("allow_hosts", tuple(host.lower().strip("[]") for host in self.allow_hosts))  # as in a parsed URL
        ports = [self.port, self.triton_http_port, self.triton_grpc_port, self.triton_metrics_port]
        if max(ports) > 65535 or min(ports) < 1 or (self.triton is None and len(set(ports)) < len(ports)):
            raise SettingsError(f"port and Triton's three ports must differ and be at most 65535, not {ports}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def all_aliases(self) -> dict[str, str]:
        """The shipped aliases with the configured ones over them."""
        return {name: target for name, target in (DEFAULT_ALIASES | self.aliases).items() if target}

    @property
    def triton_address(self) -> str:
        """Where Triton's gRPC is."""
        return self.triton or f"127.0.0.1:{self.triton_grpc_port}"

    @property
    def run_folder(self) -> Path:
        """What this instance, told apart by its port, keeps while it runs."""
        return self.cache / "run" / str(self.port)

    @property
    def image_folder(self) -> Path:
        """Holds generated images while it runs."""
        return self.run_folder / "images"

    @property
    def response_folder(self) -> Path:
        """Holds stored responses while it runs."""
        return self.run_folder / "responses"

    @property
    def pid_file(self) -> Path:
        """Holds the launcher's process id while it runs."""
        return self.run_folder / "trident.pid"

    def as_environment(self) -> dict[str, str]:
        """Return variables that make load_settings return these settings in a process of ours."""
        return {
            _PREFIX + field.name.upper(): _as_text(getattr(self, field.name)) for field in dataclasses.fields(self)
        } | {"TRIDENT_CONFIG": os.devnull}


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings, of `flags` (by field), the environment and the file. Raises SettingsError."""
    values = _read_file(Path(os.environ.get("TRIDENT_CONFIG") or "trident.toml"))
    for field in dataclasses.fields(Settings):
        variable = _PREFIX + field.name.upper()
        if os.environ.get(variable):
            values[field.name] = _Given(variable, os.environ[variable])
        if flags and flags.get(field.name) is not None:
            values[field.name] = _Given("--" + field.name.replace("_", "-"), flags[field.name])
    return Settings(**values)


@dataclass(frozen=True)
class _Given:
    """A value, and where it comes from, for errors."""

    name: str
    value: Any


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    known = {field.name for field in dataclasses.fields(Settings)}
    if unknown := sorted(table.keys() - known):
        raise SettingsError(f"{path}: unknown key '{unknown[0]}'")
    return {name: _Given(f"{name} in {path}", value) for name, value in table.items()}


def _checked(field: "dataclasses.Field[Any]", kind: Any, given: Any) -> Any:
    """Return a value in the field's type. Raises SettingsError if it has none, or is out of bounds."""
    name, value = (given.name, given.value) if isinstance(given, _Given) else (field.name, given)
    try:
        value = _convert(kind, value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise SettingsError(f"{name}: '{value}' is not valid") from None
    bounds = field.metadata
    if bounds["choices"] and value not in bounds["choices"]:
        raise SettingsError(f"{name}: '{value}' is none of {', '.join(bounds['choices'])}")
    if bounds["minimum"] is not None and not value >= bounds["minimum"]:
        raise SettingsError(f"{name}: {value} is less than {bounds['minimum']}")
    if bounds["maximum"] is not None and value > bounds["maximum"]:
        raise SettingsError(f"{name}: {value} is more than {bounds['maximum']}")
    if bounds["pattern"] and not re.fullmatch(bounds["pattern"], value):
        raise SettingsError(f"{name}: '{value}' is not {bounds['metavar']}")
    return value


def _convert(kind: Any, value: Any) -> Any:
    if kind is bool:
        return value if isinstance(value, bool) else _WORDS[value.lower()]
    if kind in (int, float):
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    if kind is Path:
        return Path(value).expanduser().absolute()
    if get_origin(kind) is tuple:
        return tuple(get_args(kind)[0](name) for name in _split(value))
    if get_origin(kind) is dict:
        table = json.loads(value) if isinstance(value, str) else value
        return {str(name): str(target) for name, target in dict(table).items()}
    return str(value)


def _split(value: Any) -> list[str]:
    """Return the names in `a b`, `a,b`, `"a with a blank"`, or several of such from a command line; a list as it is."""
    if isinstance(value, list):
        return [str(item) for item in value if item]
    if isinstance(value, tuple):
        return [name for item in value for name in ([str(item)] if isinstance(item, Path) else _split(str(item)))]
    names = shlex.shlex(value, posix=True)
    names.whitespace, names.whitespace_split = ", \t\n", True
    names.quotes, names.commenters = '"', ""
    return [name for name in names if name]


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in value)
    return json.dumps(value) if isinstance(value, dict) else "" if value is None else str(value)
