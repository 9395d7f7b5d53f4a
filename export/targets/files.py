"""The folders of models in a repository for a target."""

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.fetch import ExportError
from export.triton_config import parse_config

_MARK = "target"


def require_replaceable(folder: Path) -> None:
    """Raise ExportError if a folder exists that was not written for a target."""
    if folder.exists() and not (
        (folder / "config.pbtxt").exists() and _MARK in parse_config(folder / "config.pbtxt").parameters
    ):
        raise ExportError(f"{folder} was not written by --target; choose another --output, or delete it")


def write_config(config: pb.ModelConfig, folder: Path, target: str) -> None:
    """Write config.pbtxt, with a parameter that says for which target the folder was written."""
    config.parameters[_MARK].string_value = target
    (folder / "config.pbtxt").write_text(str(text_format.MessageToString(config)), encoding="utf-8")
