"""Catalog entries for a user's own GGUF files."""

import datetime
import os
from pathlib import Path

from export.catalog import Entry, load_defaults
from export.converters.llamacpp import CACHE_BYTES, task_of
from export.fetch import ExportError
from export.gguf_header import PROJECTOR_ARCHITECTURE, GGUFHeader, require_header
from export.local_names import local_name
from export.memory import memory_limit
from export.repository import read_record

_OVERHEAD = 300 << 20
"""What an engine needs apart from the weights and the KV cache."""


def local_entry(path: Path, bytes_per_weight: float = 0, projector: Path | None = None) -> Entry:
    """Return the entry for a GGUF file. Raises ExportError if the file is unusable or does not fit into memory.

    `bytes_per_weight` is the size of the weights to which the file will be converted; 0 if it is used as it is.
    `projector` is the file that encodes images or audio for the model, if any.
    """
    header = require_header(path)
    if header.architecture == PROJECTOR_ARCHITECTURE:
        raise ExportError(
            f"{path} is a projector, not a chat model. Add it to its model: trident serve MODEL --mmproj {path}"
        )
    if header.metadata.get("general.type") == "adapter":
        raise ExportError(
            f"{path} is a LoRA adapter, not a model. Add it to its model: trident serve MODEL --lora {path}"
        )
    metadata, task = header.metadata, task_of(header)
    is_chat = task == "chat"
    _require_memory(path, header, bytes_per_weight if is_chat else 0, projector, CACHE_BYTES if is_chat else 0)
    # The file determines whether vectors are normalized.
    parameters = load_defaults("generation") if is_chat else load_defaults("encoder") | {"normalize": ""}
    return Entry(
        name=local_name(path),
        task=task,
        id=path.stem,
        owned_by=str(metadata.get("general.organization") or metadata.get("general.author") or "user"),
        description=f"{header.architecture}, {_count(header.num_parameters)} parameters, {header.file_type}",
        license=str(metadata.get("general.license") or "unknown"),
        created=datetime.date.fromtimestamp(path.stat().st_mtime),
        size=path.stat().st_size,
        backend="generation" if is_chat else "encoder",
        converter="llamacpp" if is_chat else "llamacpp-encoder",
        parameters={name: value for name, value in parameters.items() if value},
        weights=os.path.abspath(path),
    )


def require_free_name(path: Path, repository: Path) -> None:
    """Raise ExportError if another model in the repository has the name of this file."""
    folder = repository / local_name(path)
    if not folder.exists():
        return
    weights = read_record(folder).get("weights")
    if weights and (not Path(weights).exists() or Path(weights).samefile(path)):
        return
    other = weights or f"{folder}, which the export did not create"
    raise ExportError(f"{path} would have the same name as {other}. Rename the file, or delete {folder}")


def _require_memory(
    path: Path, header: GGUFHeader, bytes_per_weight: float, projector: Path | None, cache_bytes: int
) -> None:
    size = round(header.num_parameters * bytes_per_weight) or path.stat().st_size
    size += projector.stat().st_size if projector and projector.exists() else 0
    total, kind = memory_limit(), "converted" if bytes_per_weight else header.file_type
    needed = size + cache_bytes + _OVERHEAD
    if needed > total:
        raise ExportError(
            f"{path.name} needs {needed / 1e9:.1f} GB of memory ({size / 1e9:.1f} GB for {kind} weights, "
            f"{cache_bytes / 1e9:.1f} GB for the KV cache), and this machine has {total / 1e9:.1f} GB. Use a smaller "
            "model or quantization"
        )


def _count(number: int) -> str:
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M"
