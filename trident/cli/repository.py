"""What the model repository has, read without the libraries that an export needs, so that commands start fast."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.paths import latest_version

_PARAMETER = re.compile(r'key:\s*"(\w+)"\s*value:?\s*\{\s*string_value:\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class RepositoryModel:
    """A model in the repository."""

    name: str
    folder: Path
    parameters: dict[str, str]
    record: dict[str, Any]

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

    @property
    def modified(self) -> float:
        """When the model was exported, in seconds since the epoch."""
        return (self.folder / "config.pbtxt").stat().st_mtime

    def size(self) -> int:
        """Return the size of the newest version's files in bytes."""
        try:
            version = latest_version(self.folder)
        except FileNotFoundError:
            return 0
        return sum(path.stat().st_size for path in version.rglob("*") if path.is_file())


def repository_models(repository: Path) -> list[RepositoryModel]:
    """Return the models in the repository by name."""
    return [
        RepositoryModel(path.parent.name, path.parent, _parameters(path), _record(path.parent))
        for path in sorted(repository.glob("*/config.pbtxt"))
    ]


def repository_name(given: str, repository: Path) -> str | None:
    """Return the name in the repository of a model that is named by that name or by its ID, if it is there."""
    models = repository_models(repository)
    exact = next((model.name for model in models if model.name == given), None)
    return exact or next((model.name for model in models if given.lower() in (model.id.lower(), model.name)), None)


def _parameters(config: Path) -> dict[str, str]:
    """Return the texts among the parameters of a config.pbtxt that the export wrote."""
    return dict(_PARAMETER.findall(config.read_text(encoding="utf-8")))


def _record(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
