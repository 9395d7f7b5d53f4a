"""Identifies what a model computes, on any machine: its weights, engine and precision."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from export.catalog import Entry

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16

# Options of conversions that are paths on this machine, or that do not change what is computed.
_LOCAL_OPTIONS = ("mmproj", "mmproj_file", "adapters", "adapter_files", "force", "trust_remote_code")

# The files that a conversion reads. Others, such as a README, do not matter.
_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".onnx_data", ".bin", ".json", ".model", ".jinja", ".txt")


def fingerprint(entry: Entry, weights: Path, others: Mapping[str, Path]) -> str:
    """Return the fingerprint of a model that is converted from a file or folder, with other files by their purpose.

    Of large files, samples are read: 64 pieces of 64 KiB.
    """
    options = {name: value for name, value in entry.conversion.items() if name not in _LOCAL_OPTIONS}
    digest = hashlib.sha256(json.dumps([entry.converter, options], sort_keys=True).encode())
    for name, path in [*_files(weights), *sorted(others.items())]:
        digest.update(f"{name} {path.stat().st_size} ".encode())
        for sample in _samples(path):
            digest.update(sample)
    return digest.hexdigest()[:16]


def _files(weights: Path) -> Iterator[tuple[str, Path]]:
    if weights.is_file():
        yield "weights", weights
        return
    for path in sorted(weights.rglob("*")):
        if path.is_file() and path.suffix in _SUFFIXES:
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
