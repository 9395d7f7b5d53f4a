"""Converts publishers' folders to GGUF files, in the environment that has llama.cpp's converter."""

from pathlib import Path

from export import environments

ENVIRONMENT = ".venv-gguf"


def write_gguf(source: Path, target: Path, kind: str, *, projector: bool = False) -> None:
    """Write a GGUF file with the weights in a type, f16 or q8_0.

    With `projector`, it has the part of the model that encodes images or audio. Raises ExportError.
    """
    part = ("projector",) if projector else ()
    environments.run(ENVIRONMENT, "export.isolated.gguf_chat", str(source), str(target), kind, *part)
