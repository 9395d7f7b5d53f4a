"""A model whose configuration the launcher has changed so that it fits into memory, as Triton loads it.

It consists of links to the files of the exported model, and a configuration of its own.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format

from contract.paths import latest_version
from frontend.settings import Settings
from frontend.triton.client import read_config


def write_model(source: Path, target: Path, changed: Mapping[str, str]) -> None:
    """Write a model that has the files of `source`, and its configuration with some parameters changed."""
    target.mkdir()
    for path in source.iterdir():
        if path.name != "config.pbtxt":
            (target / path.name).symlink_to(path)
    config = read_config(source / "config.pbtxt")
    for key, value in changed.items():
        config.parameters[key].string_value = value
    (target / "config.pbtxt").write_text(str(text_format.MessageToString(config)), encoding="utf-8")


def refresh_model(settings: Settings, name: str) -> None:
    """Let Triton find the files of a new export of a model. The memory that the model may use stays as it was.

    Does nothing for a model that is a link to the exported folder, and at a Triton that Trident has not started.
    """
    model = settings.served_repository / name
    if not settings.starts_triton or model.is_symlink() or not model.exists():
        return
    content = json.loads(settings.footprints_file.read_text(encoding="utf-8"))
    source = latest_version(model).parent / latest_version(model).readlink()
    shutil.rmtree(model)
    write_model(source.parent, model, content["changed"].get(name, {}))
