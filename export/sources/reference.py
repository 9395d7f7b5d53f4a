"""Parses what users write to name a model: a catalog name, a hub's ID, a URL or a path.

The launcher imports this module, and keeps what it imports. It therefore imports nothing that only an export needs.
"""

import re
from pathlib import Path
from typing import Literal, NamedTuple

from export.catalog import load_catalog
from export.fetch import ExportError

Kind = Literal["catalog", "file", "folder", "huggingface", "modelscope", "url"]

_HUBS: dict[str, Kind] = {"hf": "huggingface", "ms": "modelscope"}

# A repository's ID, and optionally a revision and the quantization of a GGUF file in it.
_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?(?::([\w.-]+))?")

# The pages of a hub's repositories.
_PAGES: tuple[tuple[str, Kind], ...] = (
    (r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)(?:/tree/([^/?#]+))?/?", "huggingface"),
    (r"https?://(?:www\.)?modelscope\.(?:cn|ai)/models/([^/]+/[^/?#]+)(?:/(?:summary|files))?/?", "modelscope"),
)


class Reference(NamedTuple):
    """A parsed name of a model."""

    text: str
    """What the user wrote."""
    kind: Kind
    location: str
    """The catalog name, path, URL or, on a hub, the repository's ID."""
    revision: str | None = None
    quantization: str | None = None


def parse_reference(text: str, hub: Kind = "huggingface") -> Reference | None:
    """Return what a name of a model refers to, or None if it can only be a folder in the model repository.

    An ID without the prefix of a hub is one on `hub`. Raises ExportError if the name is malformed.
    """
    if (name := catalog_name(text)) is not None:
        return Reference(text, "catalog", name)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _HUBS:
        match = _ID.fullmatch(rest)
        if not match:
            raise ExportError(f"'{text}' is not a model on a hub: write {prefix}:USER/REPO or {prefix}:USER/REPO:QUANT")
        return Reference(text, _HUBS[prefix], match[1], match[2], match[3])
    if re.match(r"https?://", text):
        return _parse_url(text)
    if text.lower().endswith(".gguf"):
        return Reference(text, "file", text)
    if text.startswith((".", "/", "~")) or ("/" in text and Path(text).is_dir()):
        return Reference(text, "folder", str(Path(text).expanduser()))
    if match := _ID.fullmatch(text):
        return Reference(text, hub, match[1], match[2], match[3])
    return None


def catalog_name(text: str) -> str | None:
    """Return the catalog entry that has this name or, in any case, one of whose IDs this is."""
    catalog = load_catalog()
    if text in catalog:
        return text
    if "/" not in text:
        return None
    return next((name for name, entry in catalog.items() if text.lower() in map(str.lower, entry.ids)), None)


def _parse_url(text: str) -> Reference:
    for pattern, kind in _PAGES:
        if match := re.fullmatch(pattern, text):
            return Reference(text, kind, match[1], match[2] if match.lastindex == 2 else None)
    if not re.fullmatch(r"https?://[^/\s]+/[^\s#]*\.gguf(\?[^\s#]*)?(#sha256=[0-9a-f]{64})?", text, re.IGNORECASE):
        raise ExportError(
            f"'{text}' is not the address of a GGUF file or of a repository on a hub. Add #sha256=… to verify a file"
        )
    # The page that shows a file on the Hugging Face hub is not the file itself.
    return Reference(text, "url", text.replace("/blob/", "/resolve/", 1))


def model_name(text: str) -> str:
    """Return a text, such as a file's name without its ending, as a name in the model repository."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return name or "model"
