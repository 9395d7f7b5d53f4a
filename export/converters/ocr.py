"""Converter for OCR models: the networks of PaddleOCR, published as ONNX."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from export.fetch import ExportError

_NETWORKS = ("detection.onnx", "orientation.onnx", "recognition.onnx")


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the three networks: text detection, orientation and recognition. Raise ExportError if one is missing."""
    for network in _NETWORKS:
        if not (source / network).is_file():
            raise ExportError(f"{source} has no {network}")
        shutil.copyfile(source / network, version / network)
    return {}
