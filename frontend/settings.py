"""The one settings object, and the only reader of flags, environment and file."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

# Names that OpenAI's clients and examples use. A value is a task (then the task's default model answers) or a model.
DEFAULT_ALIASES = {
    "gpt-3.5-turbo": "chat",
    "gpt-4": "chat",
    "gpt-4-turbo": "chat",
    "gpt-4o": "chat",
    "gpt-4o-mini": "chat",
    "gpt-4.1": "chat",
    "gpt-4.1-mini": "chat",
    "gpt-5": "chat",
    "gpt-5-mini": "chat",
    "text-embedding-ada-002": "embedding",
    "text-embedding-3-small": "embedding",
    "text-embedding-3-large": "embedding",
    "whisper-1": "transcription",
    "gpt-4o-transcribe": "transcription",
    "gpt-4o-mini-transcribe": "transcription",
    "tts-1": "speech",
    "tts-1-hd": "speech",
    "gpt-4o-mini-tts": "speech",
    "dall-e-2": "image_generation",
    "dall-e-3": "image_generation",
    "gpt-image-1": "image_generation",
    "gpt-image-1-mini": "image_generation",
    "gpt-image-1.5": "image_generation",
    "gpt-image-2": "image_generation",
    "chatgpt-image-latest": "image_generation",
    "rerank-english-v3.0": "rerank",
    "rerank-multilingual-v2.0": "rerank",
    "rerank-multilingual-v3.0": "rerank",
    "rerank-v3.5": "rerank",
}


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trident"


class Settings(BaseSettings):
    """Every knob. Each is a flag (`--max-body-bytes`), a variable (`TRIDENT_MAX_BODY_BYTES`) and a key of the file.

    A flag wins over a variable, a variable over the file (`trident.toml`, or the path in TRIDENT_CONFIG).
    """

    model_config = SettingsConfigDict(
        env_prefix="TRIDENT_", frozen=True, extra="forbid", cli_kebab_case=True, cli_implicit_flags=True
    )

    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(10100, ge=1, le=65535, description="port the API listens on")
    workers: int = Field(1, ge=1, description="frontend processes")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="models that must answer, by their names in the repository; the first of a task is its default"
    )
    triton: str | None = Field(
        None, description="HOST:PORT of a Triton (gRPC) that runs elsewhere; none: start one here"
    )
    triton_http_port: int = Field(
        10101, ge=1, le=65535, description="HTTP port of the embedded Triton, on 127.0.0.1, or of the one at `triton`"
    )
    triton_grpc_port: int = Field(10102, ge=1, le=65535, description="embedded Triton's gRPC port, on 127.0.0.1")
    triton_metrics_port: int = Field(10103, ge=1, le=65535, description="embedded Triton's metrics port, on 127.0.0.1")
    unknown_model: Literal["error", "default"] = Field(
        "error", description="a model name nobody knows: 404, or the default model of the task"
    )
    aliases: dict[str, str] = Field({}, description="more names for models: name → model or task; '' removes a name")
    allow_remote_shutdown: bool = Field(False, description="let any address POST /shutdown")
    max_body_bytes: int = Field(5_000_000, ge=1, description="largest JSON body")
    max_upload_bytes: int = Field(100_000_000, ge=1, description="largest uploaded file")
    allow_files: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="folders below which file:// URLs in requests may be read"
    )
    allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts that http:// URLs in requests may name although their address is private"
    )
    transcribe_audio: bool = Field(
        False, description="audio in a chat with a model that cannot hear: transcribe it first"
    )
    public_url: str | None = Field(
        None, pattern=r"^https?://[^\s?#]+$", description="where clients find the API, for the URLs of made images"
    )
    image_seconds: float = Field(3600.0, gt=0, description="how long the URL of a made image works")
    image_bytes: int = Field(1_000_000_000, ge=1, description="of made images kept for their URLs; then the oldest go")
    response_seconds: float = Field(3600.0, gt=0, description="how long a response is kept, for a next one to follow")
    response_bytes: int = Field(1_000_000_000, ge=1, description="of responses kept; then the oldest go")
    request_timeout: float = Field(600.0, gt=0, description="seconds one request may take")
    drain_seconds: int = Field(1, ge=0, description="seconds running requests get at shutdown")
    cache: Path = Field(default_factory=_default_cache, description="downloads, models, logs and PID file")

    @field_validator("models", "allow_files", "allow_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Accept `a b`, `a,b`, `"a with a blank"` and lists of names."""
        if not isinstance(value, str):
            return tuple(str(name) for name in value if name)
        names = shlex.shlex(value, posix=True)
        names.whitespace, names.whitespace_split = ", \t\n", True
        names.quotes, names.commenters = '"', ""
        return tuple(filter(None, names))

    @field_validator("allow_hosts")
    @classmethod
    def _plain_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Write hosts as they stand in a parsed URL."""
        return tuple(host.lower().strip("[]") for host in hosts)

    @field_validator("triton")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        if value is not None and not value.rpartition(":")[2].isdigit():
            raise ValueError("must be HOST:PORT")
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [self.port, self.triton_http_port, self.triton_grpc_port, self.triton_metrics_port]
        if self.triton is None and len(set(ports)) < len(ports):
            raise ValueError("port, triton-http-port, triton-grpc-port and triton-metrics-port must differ")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then the file."""
        file = TomlConfigSettingsSource(settings_cls, Path(os.environ.get("TRIDENT_CONFIG", "trident.toml")))
        return init_settings, env_settings, file

    @property
    def all_aliases(self) -> dict[str, str]:
        """The shipped aliases with the configured ones over them."""
        return {name: target for name, target in (DEFAULT_ALIASES | self.aliases).items() if target}

    @property
    def triton_address(self) -> str:
        """Where Triton's gRPC is."""
        return self.triton or f"127.0.0.1:{self.triton_grpc_port}"

    @property
    def model_repository(self) -> Path:
        """Holds the models that Triton loads."""
        return self.cache / "model_repository"

    @property
    def run_folder(self) -> Path:
        """What this instance, told apart by its port, keeps while it runs."""
        return self.cache / "run" / str(self.port)

    @property
    def image_folder(self) -> Path:
        """Holds made images while it runs."""
        return self.run_folder / "images"

    @property
    def response_folder(self) -> Path:
        """Holds answered responses while it runs."""
        return self.run_folder / "responses"

    @property
    def pid_file(self) -> Path:
        """Holds the launcher's process id while it runs."""
        return self.run_folder / "trident.pid"


def load_settings(arguments: Sequence[str]) -> Settings:
    """Read command line, environment and file. Prints usage and exits on a wrong flag."""
    source: CliSettingsSource[Settings] = CliSettingsSource(
        Settings, cli_parse_args=list(arguments), cli_prog_name="trident"
    )
    return Settings(_cli_settings_source=source)
