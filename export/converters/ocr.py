"""Models that read text in images, as PaddleOCR's are published in ONNX."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from export.fetch import ExportError

_NETWORKS = ("detection.onnx", "orientation.onnx", "recognition.onnx")


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Take the three networks: where text is, which way up it stands, and what it says."""
    for network in _NETWORKS:
        if not (source / network).is_file():
            raise ExportError(f"{source} has no {network}")
        shutil.copyfile(source / network, version / network)
    return {}
