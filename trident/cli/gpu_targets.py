"""Exports for Triton on GPU hosts: `trident export --target`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from frontend.settings import Settings
from trident.cli.exporting import export_models

if TYPE_CHECKING:
    from export.resolve import Choices


def export_for_target(
    names: Sequence[str],
    target: str,
    output: Path,
    accelerator: str,
    choices: "Choices",
    settings: Settings,
    *,
    dry_run: bool,
) -> None:
    """Write models for a target to the model repository `output`, and print what the GPU host must run.

    With `dry_run`, only print. Raises ExportError.
    """
    if target == "vllm":
        _export_for_vllm(names, output, choices, dry_run=dry_run)
    else:
        _export_networks(names, target, output, accelerator, choices, settings, dry_run=dry_run)


def _export_for_vllm(names: Sequence[str], output: Path, choices: "Choices", *, dry_run: bool) -> None:
    from export.resolve import resolve_published
    from export.targets import TRITON_VERSION
    from export.targets.vllm import write_for_vllm

    for model in [resolve_published(name, choices) for name in names]:
        if dry_run:
            click.echo(f"{output / model.name}: {model.id} for vLLM")
        else:
            write_for_vllm(model, output)
            click.echo(f"{model.name}: written to {output / model.name}")
    _print_commands([_run_triton(output, f"nvcr.io/nvidia/tritonserver:{TRITON_VERSION}-vllm-python-py3")])


def _export_networks(
    names: Sequence[str],
    target: str,
    output: Path,
    accelerator: str,
    choices: "Choices",
    settings: Settings,
    *,
    dry_run: bool,
) -> None:
    from export.engines import NO_OPTIONS
    from export.fetch import ExportError
    from export.resolve import resolve
    from export.targets.networks import tensorrt_commands, write_for_onnxruntime, write_for_tensorrt

    if dry_run:
        exported = [resolve(name, choices).entry.name for name in names]
        for name in exported:
            click.echo(f"{output / name}, {output / name}-network: for {target}")
    else:
        exported = export_models(names, choices, settings, NO_OPTIONS)
    folders = [settings.model_repository / name for name in exported]
    commands = []
    for folder in folders:
        if not (folder / "config.pbtxt").exists():
            raise ExportError(f"{folder.name}: the shapes are known once it is exported: trident export {folder.name}")
        if not dry_run and target == "tensorrt":
            write_for_tensorrt(folder, output)
        elif not dry_run:
            write_for_onnxruntime(folder, output, accelerator)
        commands += tensorrt_commands(folder, output) if target == "tensorrt" else []
        if not dry_run:
            click.echo(f"{folder.name}: written to {output / folder.name} and {output / folder.name}-network")
    _print_commands([*commands, _run_triton(output, "trident-triton")])


def _run_triton(repository: Path, image: str) -> str:
    """Return the command that starts Triton with a repository. The ports are for the frontend, on the same host."""
    from export.targets import MOUNT

    ports = "-p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001"
    command = f"docker run --rm --gpus all --shm-size 1g {ports} -v {shlex.quote(str(repository))}:{MOUNT} {image}"
    if image == "trident-triton":
        return command
    return f"{command} tritonserver --model-repository={MOUNT}"


def _print_commands(commands: Sequence[str]) -> None:
    click.echo("\nOn the GPU host:")
    for command in commands:
        click.echo(f"  {command}")
    click.echo("  trident serve --triton 127.0.0.1:8001 --model-repository FOLDER")
