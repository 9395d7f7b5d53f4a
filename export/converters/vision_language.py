"""Converter for published folders of vision-language chat models."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments
from export.converters.generation_defaults import from_generation_config
from export.fetch import ExportError
from export.model_info import VISION_TYPES, kv_bytes_per_token


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert the networks for OpenVINO GenAI, in an environment that has torch.

    Option `precision`: int8 or int4.
    """
    _check(source, options)
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        arguments = (str(source.resolve()), folder, options["precision"])
        environments.run(".venv-openvino", "export.isolated.openvino_vision_language", *arguments)
        shutil.copytree(folder, version, dirs_exist_ok=True)
    config = json.loads((version / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((version / "generation_config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    return {
        "context_length": str(text["max_position_embeddings"]),
        "kv_bytes_per_token": str(kv_bytes_per_token(text)),
    } | from_generation_config(generation)


def _check(source: Path, options: Mapping[str, str]) -> None:
    """Raise ExportError now for problems that would otherwise appear only after a long conversion."""
    if options["precision"] not in ("int8", "int4"):
        raise ExportError(
            f"on OpenVINO, models with images have no {options['precision']} weights; use --precision int8 or int4, or "
            "--engine llamacpp"
        )
    if (kind := json.loads((source / "config.json").read_text(encoding="utf-8")).get("model_type")) not in VISION_TYPES:
        raise ExportError(f"{source} has an unsupported model type, {kind}; supported: {', '.join(VISION_TYPES)}")
    if not (source / "preprocessor_config.json").exists():
        raise ExportError(f"{source} has no preprocessor_config.json")
