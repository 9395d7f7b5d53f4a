"""Exports in commands: the lock, the retries and the report of failures."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from frontend.settings import Settings
from trident.cli.options import fail
from trident.cli.progress import plain_progress
from trident.cli.tune import tuned_engine

if TYPE_CHECKING:
    from export.engines import LlamaOptions
    from export.resolve import Candidate, Choices, Weights
    from export.sources.reference import Kind

T = TypeVar("T")

_RETRY_SECONDS = 2.0


def choices_of(settings: Settings) -> "Choices":
    """Return what the settings choose for an export."""
    from export.resolve import Choices

    return Choices(settings.cache, settings.engine, settings.precision, cast("Kind", settings.hub))


@contextlib.contextmanager
def exclusive_export(settings: Settings) -> Iterator[None]:
    """Hold the export lock while the block runs. If another command holds it, say so and wait."""
    import fcntl

    from export.repository import export_lock

    for folder in {settings.cache, settings.model_repository}:
        try:
            with (folder / ".export.lock").open(encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue  # the first export here
        except BlockingIOError:
            click.echo(f"Another command is changing the models in {folder}; waiting for it to finish", err=True)
            break
    with export_lock(settings.cache, settings.model_repository):
        yield


@contextlib.contextmanager
def export_failures_reported() -> Iterator[None]:
    """Show the progress of exports. Exit with a message if one fails for a known reason, or is interrupted."""
    with plain_progress(), _failures_reported():
        yield


@contextlib.contextmanager
def _failures_reported() -> Iterator[None]:
    from export.fetch import ExportError
    from export.resolve import UnknownModel

    try:
        yield
    except UnknownModel as error:
        raise click.UsageError(str(error)) from error
    except ExportError as error:
        fail(str(error))
    except OSError as error:
        is_folder = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT)
        hint = ". Set TRIDENT_CACHE or TRIDENT_MODEL_REPOSITORY to a writable folder with free space"
        fail(f"{error}{hint if is_folder else ''}")
    except KeyboardInterrupt:
        click.echo("\nInterrupted; finished downloads and conversions are kept", err=True)
        sys.exit(130)


def export_models(
    names: Sequence[str], choices: "Choices", settings: Settings, options: "LlamaOptions", *, tune: bool = False
) -> list[str]:
    """Export models and return their names in the model repository. Raises ExportError."""
    from export.own_models import require_free_name

    with exclusive_export(settings):
        candidates = [resolve_name(name, choices, settings) for name in names]
        for candidate in candidates:
            require_free_name(candidate.entry, settings.model_repository)
        return [
            export_candidate(candidate, candidate.fetch(), settings, options, force=choices.force, tune=tune)
            for candidate in candidates
        ]


def export_candidate(
    candidate: "Candidate",
    weights: "Weights",
    settings: Settings,
    options: "LlamaOptions",
    *,
    force: bool = False,
    tune: bool = False,
) -> str:
    """Export a model from its weights, and return its name in the model repository. Raises ExportError."""
    from export.own_models import require_free_name
    from export.repository import export_model

    entry = candidate.entry
    require_free_name(entry, settings.model_repository)  # another candidate may have the same name
    source, projector = weights
    if source and entry.packages:
        source = _only_file(source)
    if projector and settings.engine != "openvino":
        options = options._replace(projector=options.projector or projector)
    if entry.converter == "llamacpp-encoder":
        options = options._replace(projector=None)
    engine = tuned_engine(entry, source, settings) if tune else settings.engine
    export_model(entry, settings.cache, settings.model_repository, source, engine, options, force=force)
    return entry.name


def _only_file(folder: Path) -> Path:
    """Return the file in a folder that has only one, as some converters read a file, and the folder otherwise."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return files[0] if len(files) == 1 else folder


def retried(attempt: Callable[[], T], retries: int) -> T:
    """Return the result of a download that may fail. With several attempts, they are announced as AHA does.

    Raises the last attempt's ExportError, and at once an error that another attempt cannot change.
    """
    from export.fetch import DownloadFailed

    for number in range(1, retries + 1):
        click.echo(f"Attempting to download model (attempt {number}/{retries})")
        try:
            return attempt()
        except DownloadFailed as error:
            if number == retries or os.environ.get("HF_HUB_OFFLINE"):
                raise
            click.echo(f"{error}\nRetrying in {_RETRY_SECONDS:.0f} seconds", err=True)
            time.sleep(_RETRY_SECONDS)
    raise AssertionError("no attempt")


def resolve_name(name: str, choices: "Choices", settings: Settings) -> "Candidate":
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
