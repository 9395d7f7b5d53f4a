"""The files of a model folder, on this machine or on a hub: what they say, and which of them are needed."""

import fnmatch
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from export.fetch import ExportError
from export.sources.listing import Hub, Listing, RemoteFile

_MAX_CONFIG_BYTES = 64 << 20
_KEPT_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".safetensors", ".tiktoken")
_SKIPPED_FOLDERS = ("onnx", "openvino", "original", "metal", "coreml", ".git", ".cache")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class ModelFiles(Protocol):
    """The files of a model, by their paths in its folder."""

    sizes: Mapping[str, int]

    def read(self, name: str) -> bytes:
        """Return a small file. Raises ExportError if it is missing or too large."""


class FolderFiles:
    """The files of a folder on this machine."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise ExportError(f"{folder} is not a folder")
        self._folder = folder
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.sizes: Mapping[str, int] = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}

    def read(self, name: str) -> bytes:
        """See `ModelFiles`."""
        _require_small(name, self.sizes)
        return (self._folder / name).read_bytes()


class HubFiles:
    """The files of a repository on a hub. What is read is downloaded."""

    def __init__(self, hub: Hub, listing: Listing):
        self._hub, self._listing = hub, listing
        self._files = {file.name: file for file in listing.files}
        self.sizes: Mapping[str, int] = {name: file.size for name, file in self._files.items()}

    def read(self, name: str) -> bytes:
        """See `ModelFiles`."""
        _require_small(name, self.sizes)
        return self._hub.fetch(self._listing, self._files[name]).read_bytes()

    def fetch(self, names: list[str]) -> Path:
        """Download files, and return the folder that has them. Raises ExportError."""
        missing = [file for name in names if not self._hub.cached(self._listing, file := self._files[name])]
        self._hub.require_space(self._listing.id, sum(file.size for file in missing))
        paths = {name: self._hub.fetch(self._listing, self._files[name]) for name in names}
        name, path = next(iter(paths.items()))
        return path.parents[len(PurePosixPath(name).parts) - 1]


def gguf_files(listing: Listing) -> list[RemoteFile]:
    """Return the GGUF files of a repository."""
    return [file for file in listing.files if file.name.lower().endswith(".gguf")]


def read_json(files: ModelFiles, name: str) -> dict[str, Any]:
    """Return a JSON file; empty if it is missing. Raises ExportError if it is not a JSON object."""
    if name not in files.sizes:
        return {}
    try:
        content = json.loads(files.read(name))
    except ValueError as error:
        raise ExportError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{name} is not a JSON object")
    return content


def weight_files(files: ModelFiles) -> list[str]:
    """Return the files with the weights, in safetensors. Raises ExportError if there are none, or some are missing."""
    index = read_json(files, "model.safetensors.index.json")
    if index:
        names = sorted(set(map(str, index.get("weight_map", {}).values())))
        if missing := [name for name in names if name not in files.sizes]:
            raise ExportError(f"the weights are incomplete: {missing[0]} is missing ({len(missing)} of {len(names)})")
        return names
    if "model.safetensors" in files.sizes:
        return ["model.safetensors"]
    if any(name.endswith(_PICKLES) and "/" not in name for name in files.sizes):
        raise ExportError(
            "the weights are only in pickle files, which can run code when they are read. Use a model with "
            "safetensors, or convert it with `transformers`' save_pretrained on a machine that you trust it with"
        )
    raise ExportError("there are no weights: neither model.safetensors nor its index was found")


def needed_files(files: ModelFiles, *, with_code: bool, weights: Collection[str] = ()) -> list[str]:
    """Return the files that a conversion needs: weights, tokenizer and configuration, and code only if asked for.

    `weights` are the files with the weights if they are not the usual ones.
    """
    weights = weights or weight_files(files)
    suffixes = (*_KEPT_SUFFIXES, ".py") if with_code else _KEPT_SUFFIXES
    return [
        name
        for name in files.sizes
        if name in weights
        or (
            name.endswith(suffixes)
            and not name.endswith(".safetensors")
            and PurePosixPath(name).parts[0] not in _SKIPPED_FOLDERS
            and files.sizes[name] <= _MAX_CONFIG_BYTES
        )
    ]


def matching_files(files: ModelFiles, patterns: Sequence[str]) -> list[str]:
    """Return the files whose paths match one of these glob patterns. Raises ExportError if a pattern has no file."""
    for pattern in patterns:
        if not fnmatch.filter(files.sizes, pattern):
            raise ExportError(f"the repository has no file {pattern}")
    return [name for name in files.sizes if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _require_small(name: str, sizes: Mapping[str, int]) -> None:
    if name not in sizes:
        raise ExportError(f"{name} is missing")
    if sizes[name] > _MAX_CONFIG_BYTES:
        raise ExportError(f"{name} has {sizes[name]:,} bytes (limit: {_MAX_CONFIG_BYTES:,})")
