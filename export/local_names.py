"""Names of a user's own GGUF files in the model repository.

The launcher imports this module, and keeps what it imports. It therefore imports nothing that only an export needs.
"""

import json
import re
from pathlib import Path

from export.catalog import load_catalog
from export.fetch import ExportError


def is_gguf(name: str) -> bool:
    """Return whether a model on the command line is the path of a GGUF file."""
    return name.lower().endswith(".gguf")


def is_hub(name: str) -> bool:
    """Return whether a model on the command line is one on the Hugging Face hub."""
    return name.startswith("hf:")


def hub_record(name: str, cache: Path) -> Path:
    """Return the file that says where the files of a model from the hub are."""
    return cache / "hub" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.json"


def hub_file(name: str, cache: Path) -> Path:
    """Return the GGUF file of a model from the hub, which has been downloaded."""
    return Path(json.loads(hub_record(name, cache).read_text(encoding="utf-8"))["model"])


def local_name(path: Path) -> str:
    """Return the name, in the model repository, of the model in a GGUF file."""
    name = _plain(path) or "model"
    return f"{name}-gguf" if name in load_catalog() else name


def adapter_name(path: Path) -> str:
    """Return the name of the LoRA adapter in a GGUF file."""
    return _plain(path) or "adapter"


def _plain(path: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")


def require_weights(folder: Path) -> None:
    """Raise ExportError if a file of an exported model is a link to a file that no longer exists."""
    version = folder / "1"
    flags = {version / "model.gguf": "", version / "mmproj.gguf": " after --mmproj"}
    flags |= dict.fromkeys((version / "adapters").glob("*.gguf"), " after --lora")
    for weights, flag in flags.items():
        if weights.is_symlink() and not weights.exists():
            path = weights.readlink()
            raise ExportError(f"{path} was not found. Serve the model with its new path{flag}, or delete {folder}")


def exported_file(folder: Path) -> str | None:
    """Return the GGUF file from which a model's folder was exported, if it still exists."""
    from export.repository import read_record

    weights = read_record(folder).get("weights") or ""
    return weights if is_gguf(weights) and Path(weights).is_file() else None
