"""Exports for Triton on GPU hosts: `trident export --target`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from frontend.settings import Settings
from trident.cli.exporting import export_models

if TYPE_CHECKING:
    from export.resolve import Choices


class Target(NamedTuple):
    """What is written, and to which model repository."""

    name: str
    output: Path
    accelerator: str
    dry_run: bool
    """Whether only the commands are printed that the GPU host must run."""


def export_for_target(names: Sequence[str], target: Target, choices: "Choices", settings: Settings) -> None:
    """Write models for a target, and print what the GPU host must run. Raises ExportError."""
    from export.fetch import ExportError
    from export.repository import export_lock

    if target.output.resolve() in (settings.model_repository.resolve(), settings.cache.resolve()):
        raise ExportError(f"{target.output} is used for exports without a target; choose another --output")
    if target.dry_run:
        _export(names, target, choices, settings)
        return
    with export_lock(target.output):
        _export(names, target, choices, settings)


def _export(names: Sequence[str], target: Target, choices: "Choices", settings: Settings) -> None:
    if target.name == "vllm":
        _export_for_vllm(names, target, choices)
    else:
        _export_networks(names, target, choices, settings)


def _export_for_vllm(names: Sequence[str], target: Target, choices: "Choices") -> None:
    from export.resolve import resolve_published
    from export.targets import TRITON_VERSION
    from export.targets.vllm import MEMORY_SHARE, write_for_vllm

    models = [resolve_published(name, choices) for name in names]
    share = int(100 * MEMORY_SHARE / len(models)) / 100  # all models run on one GPU
    for model in models:
        trust = choices.trust_remote_code
        is_new = not target.dry_run and write_for_vllm(model, target.output, share, trust_remote_code=trust)
        _say(model.name, [target.output / model.name], target, is_new)
    image = f"nvcr.io/nvidia/tritonserver:{TRITON_VERSION}-vllm-python-py3"
    cache = "-e HF_TOKEN -v trident-huggingface:/root/.cache/huggingface"
    _print_commands([_run_triton(target.output, image, cache)], target.output)


def _export_networks(names: Sequence[str], target: Target, choices: "Choices", settings: Settings) -> None:
    from export.engines import NO_OPTIONS
    from export.fetch import ExportError
    from export.resolve import resolve
    from export.targets import ENGINES
    from export.targets.networks import tensorrt_commands, write_for_onnxruntime, write_for_tensorrt

    if target.dry_run:
        exported = [resolve(name, choices).entry.name for name in names]
    else:
        exported = export_models(names, choices, settings, NO_OPTIONS)
    commands = []
    for folder in [settings.model_repository / name for name in exported]:
        if not (folder / "config.pbtxt").exists():
            raise ExportError(f"{folder.name}: the shapes are known once it is exported: trident export {folder.name}")
        is_new = False
        if not target.dry_run and target.name == "tensorrt":
            is_new = write_for_tensorrt(folder, target.output)
        elif not target.dry_run:
            is_new = write_for_onnxruntime(folder, target.output, target.accelerator)
        commands += tensorrt_commands(folder, target.output) if target.name == "tensorrt" else []
        _say(folder.name, [target.output / folder.name, target.output / f"{folder.name}-network"], target, is_new)
    engines = f"-v trident-engines:{ENGINES}" if target.accelerator == "tensorrt" else ""
    _print_commands([*commands, _run_triton(target.output, "trident-triton", engines)], target.output)


def _say(name: str, folders: Sequence[Path], target: Target, is_new: bool) -> None:
    state = f"for {target.name}" if target.dry_run else "written" if is_new else "up to date"
    click.echo(f"{name}: {state}: {', '.join(map(str, folders))}")


def _run_triton(repository: Path, image: str, options: str) -> str:
    """Return the command that starts Triton with a repository. The ports are for the frontend, on the same host."""
    from export.targets import mounted

    ports = "-p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002"
    mount = mounted(repository)
    volume = f"-v {shlex.quote(f'{repository}:{mount}')}"
    if image == "trident-triton":
        given, program = f"-e {shlex.quote(f'TRIDENT_MODEL_REPOSITORY={mount}')}", ""
    else:
        given, program = "", f"tritonserver {shlex.quote(f'--model-repository={mount}')}"
    parts = ["docker run --rm --gpus all --shm-size 1g", ports, volume, given, options, image, program]
    return " ".join(filter(None, parts))


def _print_commands(commands: Sequence[str], repository: Path) -> None:
    click.echo("\nOn the GPU host:")
    for command in commands:
        click.echo(f"  {command}")
    click.echo(f"  trident serve --triton 127.0.0.1:8001 --model-repository {shlex.quote(str(repository))}")
