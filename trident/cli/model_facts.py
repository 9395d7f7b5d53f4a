"""What is known about a model: from the catalog, and from its folder in the model repository."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contract.model_text import DEFAULT_TOOL_FORMAT
from contract.paths import latest_version
from frontend.settings import Settings
from trident.cli.options import fail

if TYPE_CHECKING:
    from export.gguf_header import GGUFHeader

_ENGINES = {
    "openvino": "OpenVINO",
    "llamacpp": "llama.cpp",
    "ctranslate2": "CTranslate2",
    "encoder": "ONNX Runtime",
    "segmentation": "ONNX Runtime",
    "ocr": "ONNX Runtime",
    "diffusion": "OpenVINO",
}
"""The engines' names, by the parameter `engine` or, without one, by the backend."""


class ModelFacts:
    """What is known about the model `given`, a name or an ID. Raise UsageError if there is no such model."""

    def __init__(self, given: str, settings: Settings):
        from google.protobuf import text_format

        from export.catalog import load_catalog
        from export.sources.reference import catalog_name
        from export.triton_config import read_model_parameters
        from trident.cli.repository import exported_name, repository_models

        on_disk = {model.name: model for model in repository_models(settings.model_repository)}
        self.name = catalog_name(given) or exported_name(given, settings.model_repository) or given
        self._entry, self._model = load_catalog().get(self.name), on_disk.get(self.name)
        if self._entry is None and self._model is None:
            hint = "`trident list` shows the available models, `trident search` finds others"
            raise click.UsageError(f"Unknown model '{given}'; {hint}")
        self.config: Path | None = self._model.folder / "config.pbtxt" if self._model else None
        """The configuration in the model repository, if the model is exported."""
        try:
            parameters = read_model_parameters(self.config) if self.config else {}
        except text_format.ParseError as error:
            fail(f"{self.config}, line {error}: fix the file, or delete it and export the model again")
        self.parameters = dict(sorted(parameters.items()))
        """The parameters in the configuration, sorted by name."""
        self._version = _version(self._model.folder) if self._model else None
        self._header = _gguf_header(self._version)

    def known(self) -> dict[str, Any]:
        """Return the known facts to show."""
        entry, parameters, header = self._entry, self.parameters, self._header
        task = parameters.get("task") or (entry.task if entry else "")
        facts: dict[str, Any] = {"id": parameters.get("id") or (entry.id if entry else self.name), "task": task}
        if entry:
            facts |= {"other IDs": entry.ids[1:], "description": entry.description}
        facts |= {
            "capabilities": self._capabilities(),
            "architecture": header.architecture if header else self._architecture(),
            "parameters": _count(header.num_parameters) if header else self._described_parameters(),
            "context": self._context(),
            "quantization": header.file_type if header else self._quantization(),
            "engine": self._engine(),
            "tool format": parameters.get("tool_format", DEFAULT_TOOL_FORMAT) if task == "chat" and parameters else "",
            "owned_by": parameters.get("owned_by") or (entry.owned_by if entry else ""),
        }
        if entry:
            facts |= {"license": entry.license, "created": str(entry.created)}
            facts |= {"weights": entry.weights, "revision": entry.revision}
        size = self._model.size() if self._model else entry.size if entry else 0
        facts["size"] = f"{size / 1e6:.0f} MB" + ("" if self._model else " to download")
        return {key: value for key, value in facts.items() if value}

    def template(self) -> str:
        """Return the chat template of an exported model, or an empty text."""
        if self._version and (path := self._version / "chat_template.jinja").exists():
            return path.read_text(encoding="utf-8")
        return str(self._header.metadata.get("tokenizer.chat_template", "")) if self._header else ""

    def weights_hint(self) -> str:
        """Return the option that an export of the model needs, if any."""
        return " --weights FOLDER" if self._entry and self._entry.weights and not self._entry.hub else ""

    def _capabilities(self) -> list[str]:
        try:
            found: list[str] = json.loads(self.parameters.get("capabilities", "null"))
        except ValueError:
            found = []
        return found or (self._entry.capabilities if self._entry else [])

    def _architecture(self) -> str:
        if self._entry and self._entry.architecture:
            return self._entry.architecture
        try:
            config = json.loads((self._version / "config.json").read_text(encoding="utf-8")) if self._version else {}
        except (OSError, ValueError):
            return ""
        return str((config.get("architectures") or [config.get("model_type", "")])[0])

    def _described_parameters(self) -> str:
        """Return the number of parameters that the catalog's description names, such as 0.5B."""
        match = re.search(r"\b[\d.]+[BM](?= parameters)", self._entry.description if self._entry else "")
        return match[0] if match else ""

    def _context(self) -> str:
        length = self.parameters.get("context_length", "")
        return f"{int(length):,} tokens" if length.isdecimal() else ""

    def _quantization(self) -> str:
        conversion = self._model.record.get("conversion", {}) if self._model else {}
        is_openvino_chat = self.parameters.get("task") == "chat" and self.parameters.get("engine") == "openvino"
        return str(conversion.get("precision") or ("int8" if is_openvino_chat else ""))

    def _engine(self) -> str:
        if engine := self.parameters.get("engine"):
            return _ENGINES.get(engine, engine)
        if self._entry and self._entry.engines and not self.parameters:
            return " or ".join(_ENGINES.get(each, each) for each in self._entry.engines)
        return _ENGINES.get(self._entry.backend, "") if self._entry else ""


def _version(folder: Path) -> Path | None:
    try:
        return latest_version(folder)
    except FileNotFoundError:
        return None


def _gguf_header(version: Path | None) -> "GGUFHeader | None":
    """Return the header of a model that is served as a GGUF file."""
    if version is None or not (version / "model.gguf").exists():
        return None
    from export.gguf_header import InvalidGGUF, read_header

    try:
        return read_header(version / "model.gguf")
    except (OSError, InvalidGGUF):
        return None


def _count(number: int) -> str:
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M"
