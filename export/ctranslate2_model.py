"""Models in CTranslate2's format, which are served as they are published."""

import shutil
from collections.abc import Mapping
from pathlib import Path


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Take a folder's files as they are."""
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, version / path.name)
    return {}
