"""Chat models that see images, from their published folders."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Make the networks for OpenVINO GenAI, in an environment that has torch; option `weights`: int8, int4, fp32."""
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        arguments = (str(source.resolve()), folder, options.get("weights", "int8"))
        environments.run(".venv-openvino", "export.vision_language", *arguments)
        shutil.copytree(folder, version, dirs_exist_ok=True)
    config = json.loads((version / "config.json").read_text())
    return {"context_length": str(config.get("text_config", config)["max_position_embeddings"])}
