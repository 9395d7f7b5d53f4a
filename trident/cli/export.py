"""The `trident export` command, which downloads and converts models for the model repository."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export.targets import TARGETS
from frontend.settings import Settings
from trident.cli.exporting import choices_of, exclusive_export, export_failures_reported, export_models
from trident.cli.gpu_targets import Target, export_for_target
from trident.cli.options import GroupedCommand, complete_model, load_command_settings, model_options, setting_options

if TYPE_CHECKING:
    from export.resolve import Choices

_EXPORT_SETTINGS = ("engine", "precision", "hub", "model_repository", "cache")


@click.command(cls=GroupedCommand)
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@click.option("--all", "every", is_flag=True, help="export every model that the package index provides")
@click.option(
    "--weights",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="folder with the weights to convert; requires exactly one MODEL",
)
@click.option("--requantize", is_flag=True, help="convert the weights of GGUF files to Q8_0 for llama.cpp")
@click.option("--tune", is_flag=True, help="measure both engines of GGUF chat models, and use the faster one")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="write models for Triton on a GPU host instead, to --output",
)
@click.option(
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="with --target: the model repository for the GPU host",
)
@click.option(
    "--accelerator",
    type=click.Choice(["cuda", "tensorrt"]),
    help="with --target onnxruntime-gpu: what runs the network (default: cuda)",
)
@click.option("--dry-run", is_flag=True, help="show what would be downloaded and how it would be served")
@click.option("--rollback", is_flag=True, help="restore the previous version of each MODEL in the model repository")
@click.option("--names-to", type=click.Path(path_type=Path), hidden=True)
@model_options
@setting_options(_EXPORT_SETTINGS)
def export(
    names: tuple[str, ...],
    every: bool,
    weights: Path | None,
    requantize: bool,
    tune: bool,
    target: str | None,
    output: Path | None,
    accelerator: str | None,
    dry_run: bool,
    rollback: bool,
    names_to: Path | None,
    mmproj: Path | None,
    lora: tuple[Path, ...],
    trust_remote_code: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Download and convert models, and add them to the model repository.

    MODEL is the name of a catalog entry, a repository on the Hugging Face hub or ModelScope (USER/REPO, hf:USER/REPO,
    ms:USER/REPO, with @REVISION, and :Q4_K_M for a GGUF file), the URL or path of a GGUF file, or a folder (./FOLDER).
    Without MODEL, exports the starter set.

    \b
    Examples:
      trident export qwen3-0.6b --precision int4
      trident export ./model.gguf --dry-run
      trident export qwen3-0.6b --rollback
      trident export qwen3-0.6b --target vllm --output ./gpu
    """
    from export.catalog import load_catalog, starter_names
    from export.engines import LlamaOptions
    from export.sources.reference import catalog_name

    catalog, settings = load_catalog(), load_command_settings(flags)
    if rollback:
        _roll_back(names, settings)
        return
    named = catalog_name(names[0]) if len(names) == 1 else None
    if weights and (named is None or every):
        raise click.UsageError("--weights requires exactly one MODEL of the catalog")
    if weights and not weights.is_dir():
        raise click.UsageError(f"--weights: '{weights}' is not a folder")
    if (mmproj or lora) and (len(names) != 1 or every):
        raise click.UsageError(f"{'--mmproj' if mmproj else '--lora'} requires exactly one MODEL")
    if every:
        names = (*names, *(name for name in catalog if catalog[name].packages and name not in names))
    options = LlamaOptions(requantize, mmproj, lora)
    if tune and (options.flag or settings.engine != "auto"):
        raise click.UsageError(f"--tune chooses the engine, and cannot be combined with {options.flag or '--engine'}")
    choices = choices_of(settings)._replace(
        requantize=requantize, projector=mmproj, trust_remote_code=trust_remote_code, force=force, weights=weights
    )
    if target:
        ignored = [f"--{name}" for name in ("engine", "precision") if target == "vllm" and flags.get(name)]
        ignored += ["--weights"] if target == "vllm" and weights else []
        ignored += ["--accelerator"] if accelerator and target != "onnxruntime-gpu" else []
        if ignored:
            raise click.UsageError(f"{ignored[0]} does not apply to --target {target}")
        if output is None or not names or every or tune or options.flag:
            raise click.UsageError("--target requires MODEL and --output, and goes with neither --tune nor files")
        with export_failures_reported():
            given = Target(target, output.absolute(), accelerator or "cuda", dry_run)
            export_for_target(names, given, choices, settings)
        return
    if output or accelerator:
        raise click.UsageError(f"{'--output' if output else '--accelerator'} requires --target")
    with export_failures_reported():
        if dry_run:
            for name in names or starter_names():
                _show_plan(name, choices, settings)
            return
        exported = export_models(names or starter_names(), choices, settings, options, tune=tune)
    if names_to:
        names_to.write_text(json.dumps(exported), encoding="utf-8")


def _show_plan(name: str, choices: "Choices", settings: Settings) -> None:
    from export.resolve import plan, resolve

    for key, value in plan(resolve(name, choices), settings.engine, settings.model_repository).items():
        click.echo(f"{key:14} {value}")
    click.echo()


def _roll_back(names: Sequence[str], settings: Settings) -> None:
    from export.repository import roll_back

    if not names:
        raise click.UsageError("--rollback requires a MODEL")
    with export_failures_reported(), exclusive_export(settings):
        for name in names:
            roll_back(name, settings.model_repository)
