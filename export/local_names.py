"""Names of a user's own models in the model repository, and where these models come from.

The launcher imports this module, and keeps what it imports. It therefore imports nothing that only an export needs.
"""

from pathlib import Path

from export.catalog import load_catalog
from export.fetch import ExportError
from export.sources.reference import model_name


def free_name(text: str, suffix: str) -> str:
    """Return the name, in the model repository, of a user's model: with a suffix if the catalog has this name."""
    name = model_name(text)
    return f"{name}-{suffix}" if name in load_catalog() else name


def adapter_name(path: Path) -> str:
    """Return the name of the LoRA adapter in a GGUF file."""
    return model_name(path.stem)


def require_weights(folder: Path) -> None:
    """Raise ExportError if a file of an exported model is a link to a file that no longer exists."""
    for version in folder.glob("[0-9]*"):
        flags = {version / "model.gguf": "", version / "mmproj.gguf": " after --mmproj"}
        flags |= dict.fromkeys((version / "adapters").glob("*.gguf"), " after --lora")
        for weights, flag in flags.items():
            if weights.is_symlink() and not weights.exists():
                path = weights.readlink()
                raise ExportError(f"{path} was not found. Serve the model with its new path{flag}, or delete {folder}")


def recorded_origin(folder: Path) -> str | None:
    """Return the file or folder to export to bring a model's folder up to date, or None if there is none.

    A model from a hub is served as it is, so that this needs no connection.
    """
    from export.repository import read_record

    record = read_record(folder)
    origin = str(record.get("origin") or "")
    if not origin:  # an export of an earlier version
        weights = record.get("weights") or ""
        origin = weights if weights.lower().endswith(".gguf") else ""
    return origin if origin and not is_remote(origin) and Path(origin).exists() else None


def is_remote(origin: str) -> bool:
    """Return whether the origin of a model is a hub or a URL."""
    return "://" in origin or origin.startswith(("hf:", "ms:"))
