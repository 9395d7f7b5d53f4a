"""Converter for background removal models published as ONNX."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from export.fetch import ExportError


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the network: the only .onnx file in the folder, or the one that option `file` names.

    Raise ExportError if `file` is not set and the folder does not have exactly one .onnx file.
    """
    found = [source / options["file"]] if "file" in options else sorted(source.glob("*.onnx"))
    if len(found) != 1:
        raise ExportError(f"{source} has {len(found)} .onnx files; exactly one is required")
    shutil.copyfile(found[0], version / "model.onnx")
    return {}
