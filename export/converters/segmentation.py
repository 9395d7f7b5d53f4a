"""Converter for background removal models published as ONNX."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from export.fetch import ExportError


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the network: the file that the option `file` names, or else the only .onnx file in the folder.

    Raise ExportError if the folder has neither.
    """
    named = source / options.get("file", "")
    found = [named] if named.is_file() else sorted(source.glob("*.onnx"))
    if len(found) != 1:
        raise ExportError(f"{source} has {len(found)} .onnx files; exactly one is required")
    shutil.copyfile(found[0], version / "model.onnx")
    return {}
