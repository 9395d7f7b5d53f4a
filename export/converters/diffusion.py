"""Models that make images, from diffusers' published layout."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments
from export.fetch import ExportError

_FORMATS = ("fp32", "fp16", "int8")


def convert_to_openvino(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Make the networks for OpenVINO GenAI, with weights in the format that option `weights` names (fp16)."""
    weight_format = options.get("weights", "fp16")
    if weight_format not in _FORMATS:
        raise ExportError(f"weights are {', '.join(_FORMATS)}, not {weight_format}")
    if not (source / "model_index.json").exists():
        raise ExportError(f"{source} has no model_index.json: no folder of diffusers'")
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        environments.run(
            ".venv-openvino", "export.isolated.openvino_diffusion", str(source.resolve()), folder, weight_format
        )
        shutil.copytree(folder, version, dirs_exist_ok=True)
    return {}
