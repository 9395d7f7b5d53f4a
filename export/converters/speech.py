"""Converters for speech models, which copy the published files and list the voices in the parameter `voices`."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export import environments
from export.fetch import ExportError

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
_VOXCPM2_LANGUAGES = "zh en ar my da nl fi fr de el he hi id it ja km ko lo ms no pl pt ru es sw sv tl th tr vi"

_OPENAI_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)

# The size of a Kokoro voice: a style for each number of phonemes.
_STYLES, _STYLE = 510, 256

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
    return {"voices": json.dumps([_describe(name) for name in names])}


def convert_kokoro_hub(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the network that the option `file` names, its phoneme vocabulary and the voices in voices/NAME.bin.

    A voice is [510, 1, 256] values in float32. Raises ExportError if a voice has another size.
    """
    shutil.copyfile(source / options["file"], version / "kokoro.onnx")
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    content = json.dumps({"vocab": tokenizer["model"]["vocab"]}, ensure_ascii=False)
    (version / "vocab.json").write_text(content, encoding="utf-8")
    styles = {}
    for path in sorted((source / "voices").glob("*.bin")):
        values = np.fromfile(path, "<f4")
        if values.size != _STYLES * _STYLE:
            raise ExportError(f"{path.name} is not a voice of Kokoro: it has {values.size:,} numbers")
        styles[path.stem] = values.reshape(_STYLES, 1, _STYLE)
    if not styles:
        raise ExportError("the folder voices/ has no voices")
    np.savez(version / "voices.npz", **styles)
    return {"voices": json.dumps([_describe(name) for name in styles])}


def _describe(name: str) -> dict[str, str]:
    language, gender = _LANGUAGES.get(name[0], "unknown"), _GENDERS.get(name[1:2], "unknown")
    return {"id": name, "language": language, "gender": gender}


def convert_voxcpm(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy the configuration and the tokenizer, write the weights to safetensors, and make the default voice.

    The returned parameter `environment` names the environment with the package voxcpm, in which the engine's process
    runs. Raises ExportError if the files are not those of such a model.
    """
    environments.run(".venv-voice", "export.isolated.voxcpm_weights", str(source), str(version))
    print("  making the default voice", flush=True)
    environments.run(".venv-voice", "backends.speech.voxcpm_process", str(version))
    is_second = options["architecture"] == "voxcpm2"
    languages = _VOXCPM2_LANGUAGES if is_second else "zh en"
    return {
        "environment": ".venv-voice",
        "languages": languages,
        "needs_transcript": "false" if is_second else "true",
        "voices": json.dumps([{"id": "default", "language": "zh", "gender": "unknown"}]),
        "voice": "default",
        "voice_aliases": json.dumps(dict.fromkeys(_OPENAI_VOICES, "default")),
    }


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
