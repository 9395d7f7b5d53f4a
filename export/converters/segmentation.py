"""Models that cut out the foreground, as they are published in ONNX."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from export.fetch import ExportError


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Take the network: the only .onnx file there is, or the one that option `file` names."""
    found = [source / options["file"]] if "file" in options else sorted(source.glob("*.onnx"))
    if len(found) != 1:
        raise ExportError(f"{source} has {len(found)} .onnx files and not one")
    shutil.copyfile(found[0], version / "model.onnx")
    return {}
