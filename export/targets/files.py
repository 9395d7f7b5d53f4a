"""The folders of models in a repository for a target."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.fetch import ExportError

_RECORD = "target.json"
# Part of each record: folders are written again if the code writes other ones.
_FORM = 1


def is_current(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a folder was written from the same things. It may have been edited, or have a plan since."""
    try:
        return bool(json.loads((folder / _RECORD).read_text(encoding="utf-8")) == {**record, "form": _FORM})
    except (FileNotFoundError, ValueError):
        return False


def require_replaceable(folder: Path) -> None:
    """Raise ExportError if a folder exists that was not written for a target."""
    if folder.exists() and not (folder / _RECORD).exists():
        raise ExportError(f"{folder} was not written by --target; choose another --output, or delete it")


def write_config(config: pb.ModelConfig, folder: Path, record: Mapping[str, Any]) -> None:
    """Write config.pbtxt, and what the folder was written from."""
    (folder / "config.pbtxt").write_text(str(text_format.MessageToString(config)), encoding="utf-8")
    (folder / _RECORD).write_text(json.dumps({**record, "form": _FORM}, indent=1), encoding="utf-8")
