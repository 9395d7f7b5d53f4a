"""Converters for speech models, which copy the published files and list the voices in the parameter `voices`."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# The first letter of a Kokoro voice's name is its language, the second its gender.
_LANGUAGES = {
    "a": "en-US",
    "b": "en-GB",
    "e": "es",
    "f": "fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-BR",
    "z": "zh",
}
_GENDERS = {"f": "female", "m": "male"}


def convert_hibari(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the networks, one per voice; hibari's voices.json describes the voices."""
    described = json.loads((source / "voices.json").read_text(encoding="utf-8"))
    voices = []
    for path in sorted(source.glob("*.onnx")):
        shutil.copyfile(path, version / path.name)
        about = described[path.stem]
        voices.append({"id": path.stem, "language": about["language"], "gender": about["gender"]})
    return {"voices": json.dumps(voices)}


def convert_kokoro(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the network, its phoneme vocabulary and every .npz file, each of which holds voices."""
    names = []
    for path in [source / "kokoro.onnx", source / "vocab.json", *sorted(source.glob("*.npz"))]:
        shutil.copyfile(path, version / path.name)
        if path.suffix == ".npz":
            with np.load(path) as styles:
                names += styles.files
    voices = [
        {"id": name, "language": _LANGUAGES.get(name[0], "unknown"), "gender": _GENDERS.get(name[1:2], "unknown")}
        for name in names
    ]
    return {"voices": json.dumps(voices)}


def convert_pocket_tts(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the weights, tokenizer and configuration of one language, and its voices, if any: embeddings/*.safetensors.

    The returned parameter `environment` names the environment with the pocket-tts package, in which the engine's
    process runs.
    """
    shutil.copyfile(source / "model.safetensors", version / "model.safetensors")
    for path in [*source.glob("tokenizer.*"), *source.glob("config.yaml")]:
        shutil.copyfile(path, version / path.name)
    voices = sorted((source / "embeddings").glob("*.safetensors"))
    for path in voices:
        shutil.copyfile(path, version / path.name)
    described = [{"id": path.stem, "language": "en-US", "gender": "unknown"} for path in voices]
    first = voices[0].stem if voices else ""
    return {"voices": json.dumps(described), "voice": first, "environment": ".venv-voice"}
