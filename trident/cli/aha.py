"""AHA's `trident cli` and `serv`, which serve one model (see docs/compatibility.md)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from frontend.settings import Settings
from trident.cli.model_files import ModelFiles, model_file_options
from trident.cli.options import GroupedCommand, fail, load_command_settings, model_option, setting_options
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
        model_option("model to serve", required=True),
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
    if save_dir and files.given:
        raise click.UsageError("--save-dir does not apply to a model whose files are given")
    settings = load_command_settings(_shared(flags))
    if save_dir:
        from trident.cli.downloads import is_saved, saved_folder

        folder = saved_folder(model, save_dir)
        if not is_saved(folder):
            _download(model, settings, download_retries, ["--save-dir", str(save_dir)])
        files = ModelFiles(weight_path=folder)
    elif not (files.given or _is_exported(model, settings)):
        _download(model, settings, download_retries, [])
    name, options = files.apply(model)
    _serve(model, name, options, flags)


def _download(model: str, settings: Settings, retries: int, options: list[str]) -> None:
    """Run `trident download` in a process of its own, so that the launcher does not keep its imports and memory."""
    from trident.launch.children import end_with_parent

    command = [sys.executable, "-m", "trident", "download", "-m", model, "--download-retries", str(retries), *options]
    environment = os.environ | settings.as_environment()
    if code := subprocess.run(command, env=environment, preexec_fn=end_with_parent, check=False).returncode:
        sys.exit(code) if code > 0 else fail(f"The download was killed by signal {-code}")


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


def _is_exported(model: str, settings: Settings) -> bool:
    from trident.cli.repository import exported_name

    return exported_name(model, settings.model_repository) is not None


def _serve(model: str, name: str, options: list[str], flags: dict[str, Any]) -> None:
    serve_models([name], options, _shared(flags), alias=model if name != model else None)
