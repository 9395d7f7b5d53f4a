"""What the model repository has, read without the libraries that an export needs, so that commands start fast."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.paths import latest_version

_PARAMETER = re.compile(r'key:\s*"(\w+)"\s*value:?\s*\{\s*string_value:\s*"((?:[^"\\]|\\.)*)"')
_REVISION = re.compile(r"@[\w./-]+")


@dataclass(frozen=True)
class RepositoryModel:
    """A model in the repository. `modified` is when it was exported, in seconds since the epoch."""

    name: str
    folder: Path
    parameters: dict[str, str]
    record: dict[str, Any]
    modified: float

    @property
    def id(self) -> str:
        """The ID that clients use."""
        return self.parameters.get("id", self.name)

    @property
    def origin(self) -> str:
        """Where a user's own model comes from, or an empty text."""
        return str(self.record.get("origin") or "")

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the weights, or an empty text."""
        return str(self.record.get("parameters", {}).get("fingerprint", ""))

    def size(self) -> int:
        """Return the size of the newest version's files in bytes."""
        try:
            files = [path.stat() for path in latest_version(self.folder).rglob("*") if path.is_file()]
        except FileNotFoundError:  # it is being replaced
            return 0
        return sum(file.st_size for file in files)


def repository_models(repository: Path) -> list[RepositoryModel]:
    """Return the models in the repository by name."""
    return list(_models(repository))


def exported_name(given: str, repository: Path) -> str | None:
    """Return the name in the repository of a model that a user names, or None if it is not there.

    The user may name it by this name, by an ID or, if it is the user's own, by what was exported.
    """
    from export.sources.reference import catalog_name

    models = repository_models(repository)
    known = catalog_name(given) or given
    for is_it in (
        lambda model: model.name == known,
        lambda model: given.lower() in (model.id.lower(), model.name),
        lambda model: _is_origin(given, model.origin),
    ):
        if name := next((model.name for model in models if is_it(model)), None):
            return name
    return None


def is_path_or_url(text: str) -> bool:
    """Return whether a user's name of a model is a path or an address, and not a name or an ID."""
    return text.startswith((".", "/", "~")) or "://" in text or text.lower().endswith(".gguf")


def size_text(size: int) -> str:
    """Return a size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _is_origin(given: str, origin: str) -> bool:
    """Return whether a model that was exported from `origin` is what a user names. A revision may be omitted."""
    if not origin:
        return False
    if is_path_or_url(given):
        return origin in (given, str(Path(given).absolute()), str(Path(given).resolve()))
    wanted = given if given.startswith(("hf:", "ms:")) else f"hf:{given}"
    return wanted.lower() in (origin.lower(), _REVISION.sub("", origin, count=1).lower())


def _models(repository: Path) -> Iterator[RepositoryModel]:
    for path in sorted(repository.glob("*/config.pbtxt")):
        try:
            parameters, modified = _parameters(path), path.stat().st_mtime
        except OSError:  # it is being replaced, or not readable
            continue
        yield RepositoryModel(path.parent.name, path.parent, parameters, _record(path.parent), modified)


def _parameters(config: Path) -> dict[str, str]:
    """Return the texts among the parameters of a config.pbtxt that the export wrote."""
    return dict(_PARAMETER.findall(config.read_text(encoding="utf-8", errors="replace")))


def _record(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
