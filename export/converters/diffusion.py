"""Converter for image generation models in the Diffusers layout."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments
from export.fetch import ExportError

_FORMATS = ("fp32", "fp16", "int8")


def convert_to_openvino(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert the networks for OpenVINO GenAI. The option `weights` is their format: fp16 (default), fp32 or int8."""
    weight_format = options.get("weights", "fp16")
    if weight_format not in _FORMATS:
        raise ExportError(f"'weights' must be one of {', '.join(_FORMATS)}, not {weight_format}")
    if not (source / "model_index.json").exists():
        raise ExportError(f"{source} has no model_index.json; it is not a Diffusers folder")
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        environments.run(
            ".venv-openvino", "export.isolated.openvino_diffusion", str(source.resolve()), folder, weight_format
        )
        shutil.copytree(folder, version, dirs_exist_ok=True)
    return {}
