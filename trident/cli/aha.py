"""AHA's `trident cli` and `serv`, which serve one model (see docs/compatibility.md)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from trident.cli.exporting import export_failures_reported
from trident.cli.model_files import ModelFiles, model_file_options
from trident.cli.options import GroupedCommand, fail, load_command_settings, setting_options
from trident.cli.serve import serve_models

_SETTINGS = (
    "workers",
    "engine",
    "precision",
    "hub",
    "kv_cache_gb",
    "context_length",
    "max_num_seqs",
    "aliases",
    "model_repository",
    "cache",
)


def _server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands have."""
    options = [
        click.option("-m", "--model", required=True, metavar="MODEL", help="model to serve"),
        click.option("-a", "--address", "host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)"),
        click.option("-p", "--port", metavar="PORT", help="port to listen on (default: 10100)"),
        click.option("--allow-remote-shutdown", is_flag=True, help="accept POST /shutdown from any address"),
        model_file_options,
        setting_options(_SETTINGS),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command(cls=GroupedCommand)
@click.option("--save-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="folder for the model's files")
@click.option("--download-retries", type=click.IntRange(1, 100), default=3, metavar="N", help="attempts (default: 3)")
@_server_options
def cli(model: str, save_dir: Path | None, download_retries: int, **flags: Any) -> None:
    """Download a model if needed, and serve it.

    \b
    Examples:
      trident cli -m Qwen/Qwen3-0.6B
      trident cli -m Qwen/Qwen3-VL-2B-Instruct -a 0.0.0.0 -p 8080 --save-dir /data/models
      trident cli -m qwen3.5-gguf --gguf-path model.gguf --mmproj-path mmproj.gguf
    """
    files = ModelFiles.from_flags(flags)
    name, options = files.apply(model)
    if not files.given:
        from trident.cli.downloads import download_model, save_files

        settings = load_command_settings(_shared(flags))
        with export_failures_reported():
            if save_dir:
                folder = save_files(model, save_dir, settings, download_retries)
                name, options = ModelFiles(weight_path=folder).apply(model)
            elif not _is_exported(model, settings):
                download_model(model, settings, download_retries)
    _serve(model, name, options, flags)


@click.command(cls=GroupedCommand)
@_server_options
def serv(model: str, **flags: Any) -> None:
    """Serve a model that is on this machine, without a download.

    \b
    Examples:
      trident serv -m Qwen/Qwen3-0.6B
      trident serv -m Qwen/Qwen3-VL-2B-Instruct --weight-path /data/models/Qwen/Qwen3-VL-2B-Instruct
    """
    files = ModelFiles.from_flags(flags)
    name, options = files.apply(model)
    if not files.given and not _is_exported(model, load_command_settings(_shared(flags))):
        fail("serv subcommand will not download model, use `weight-path` to pass the model path")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _serve(model, name, options, flags)


def _shared(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that are settings. A switch that is not set leaves the setting as it is configured."""
    return {name: value for name, value in flags.items() if value is not False}


def _is_exported(model: str, settings: Any) -> bool:
    from export.sources.reference import catalog_name
    from trident.cli.repository import repository_name

    return repository_name(catalog_name(model) or model, settings.model_repository) is not None


def _serve(model: str, name: str, options: list[str], flags: dict[str, Any]) -> None:
    serve_models([name], options, _shared(flags), alias=model if name != model else None)
