"""Chooses a GGUF file, and the projector beside it, among the files of a repository."""

import re
from collections.abc import Sequence
from pathlib import Path

from export.fetch import ExportError
from export.sources.listing import RemoteFile

# The quantizations to choose from, if none is given, in order of preference.
_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "Q4_0", "F16", "BF16")

# Of projectors, a higher precision costs little.
_PREFERRED_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def choose_gguf(
    name: str, files: Sequence[RemoteFile], quantization: str | None
) -> tuple[RemoteFile, RemoteFile | None]:
    """Return the model and the projector among GGUF files. Raises ExportError if no file has the quantization."""
    projectors = [file for file in files if "mmproj" in file.name.lower()]
    models = [file for file in files if file not in projectors]
    if not models:
        raise ExportError(f"{name}: the repository has no GGUF file of a model")
    model = _choose(name, models, quantization)
    if _PART.search(model.name):
        raise ExportError(f"{name}: {model.name} is split into several files; merge them with llama-gguf-split first")
    return model, next(iter(_by_preference(projectors, _PREFERRED_PROJECTORS)), None)


def _choose(name: str, models: Sequence[RemoteFile], quantization: str | None) -> RemoteFile:
    if quantization is None:
        return _by_preference(models, _PREFERRED)[0]
    matching = [file for file in models if _has(file, quantization)]
    if not matching:
        names = ", ".join(sorted(Path(file.name).stem for file in models)[:20])
        raise ExportError(f"{name}: the repository has no file with {quantization}. It has: {names}")
    return min(matching, key=lambda file: len(file.name))


def _by_preference(files: Sequence[RemoteFile], preferred: Sequence[str]) -> list[RemoteFile]:
    """Return the files with the preferred quantizations first, then the smaller ones first."""

    def rank(file: RemoteFile) -> tuple[int, int]:
        found = (index for index, quantization in enumerate(preferred) if _has(file, quantization))
        return next(found, len(preferred)), file.size

    return sorted(files, key=rank)


def _has(file: RemoteFile, quantization: str) -> bool:
    """Return whether a file's name has a quantization, delimited by other characters."""
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(quantization.lower())}(?![a-z0-9_])", file.name.lower()))
