"""Converters for Whisper models in CTranslate2's format."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments
from export.converters.readable_folder import readable_folder


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the files of a published folder. CTranslate2 loads them unchanged."""
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, version / path.name)
    return {}


def convert_folder(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a publisher's folder for CTranslate2, in an environment that has torch."""
    with readable_folder(source, options) as read, tempfile.TemporaryDirectory(dir=version.parent) as folder:
        print(environments.run(".venv-onnx", "export.isolated.ctranslate2_whisper", str(read), folder).rstrip())
        shutil.copytree(folder, version, dirs_exist_ok=True)
    return {}


def convert_to_openvino(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert the encoder and decoder for OpenVINO GenAI, in an environment that has torch."""
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        environments.run(".venv-openvino", "export.isolated.openvino_whisper", str(source), folder)
        shutil.copytree(folder, version, dirs_exist_ok=True)
    return {}
