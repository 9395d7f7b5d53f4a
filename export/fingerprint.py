"""Identifies what a model computes, on any machine: its weights, engine and precision."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from export.catalog import Entry

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16

# Options of conversions that are paths on this machine, or that do not change what is computed.
_LOCAL_OPTIONS = ("mmproj", "mmproj_file", "adapters", "adapter_files", "force", "trust_remote_code")

# The files that a conversion reads. Others, such as a README, do not matter.
_SUFFIXES = (
    *(".safetensors", ".gguf", ".onnx", ".onnx_data", ".bin", ".pt", ".pth"),
    *(".json", ".yaml", ".model", ".jinja", ".txt"),
)

# Of these, conversions read none if there are safetensors.
_UNREAD = (".bin", ".onnx", ".onnx_data", ".gguf")


def content_hash(weights: Path) -> str:
    """Return the hash of what a conversion reads of a file or folder; of large files, of samples."""
    return _hash(b"", _files(weights))


def fingerprint(entry: Entry, weights: Path, others: Mapping[str, Path]) -> str:
    """Return the fingerprint of a model that is converted from a file or folder, with other files by their purpose.

    Of large files, samples are read: 64 pieces of 64 KiB.
    """
    options = {name: value for name, value in entry.conversion.items() if name not in _LOCAL_OPTIONS}
    start = json.dumps([entry.converter, options], sort_keys=True).encode()
    return _hash(start, [*_files(weights), *sorted(others.items())])


def _hash(start: bytes, files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256(start)
    for name, path in files:
        digest.update(f"{name} {path.stat().st_size} ".encode())
        for sample in _samples(path):
            digest.update(sample)
    return digest.hexdigest()[:16]


def _files(weights: Path) -> Iterator[tuple[str, Path]]:
    if weights.is_file():
        yield "weights", weights
        return
    paths = [path for path in sorted(weights.rglob("*")) if path.is_file() and path.suffix in _SUFFIXES]
    has_safetensors = any(path.suffix == ".safetensors" for path in paths)
    for path in paths:
        if not (has_safetensors and path.suffix in _UNREAD):
            yield path.relative_to(weights).as_posix(), path


def _samples(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            yield file.read()
            return
        for index in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
            yield file.read(_SAMPLE_BYTES)
