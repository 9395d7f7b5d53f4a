"""Converters for speech recognizers that are language models with an audio encoder, in a publisher's folder."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from contract.paths import default_cache
from export import environments
from export.converters.gguf_folder import ENVIRONMENT, write_gguf
from export.converters.llamacpp import link_libraries
from export.converters.readable_folder import read_json_file, readable_folder
from export.llamacpp import fetch_libraries, fetch_multimodal_library

_OPENVINO_MODULES = {"qwen3-asr": "export.isolated.openvino_qwen3_asr", "fun-asr": "export.isolated.openvino_fun_asr"}


def convert_to_openvino(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a folder for OpenVINO GenAI.

    Options: `family`, as in backends/transcription/language_models.py, and `precision`: int8, or f32 for unquantized
    weights. Raises ExportError.
    """
    family = options["family"]
    precision = "int8" if options["precision"] == "int8" else "f32"
    # Fun-ASR has other files than the ones that transformers reads.
    files = nullcontext(source) if family == "fun-asr" else readable_folder(source, options)
    with files as read, tempfile.TemporaryDirectory(dir=version.parent) as folder:
        environments.run(".venv-asr", _OPENVINO_MODULES[family], str(read), folder, precision)
        shutil.copytree(folder, version, dirs_exist_ok=True)
    return {"engine": "openvino", "family": family}


def convert_to_gguf(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a folder to a GGUF file for llama.cpp, and a projector or another network that encodes audio.

    It has the options of `convert_to_openvino`, but unquantized weights are f16. Raises ExportError.
    """
    kind = "q8_0" if options["precision"] == "int8" else "f16"
    with readable_folder(source, options) as read, tempfile.TemporaryDirectory(dir=version.parent) as folder:
        if options["family"] == "glm-asr":
            parts = Path(folder)
            environments.run(ENVIRONMENT, "export.isolated.glm_asr_parts", str(read), folder)
            write_gguf(parts / "language_model", version / "model.gguf", kind)
            for part in parts.glob("audio_encoder.*"):
                shutil.move(part, version / part.name)
            if kind == "q8_0":
                from export.converters import openvino_weights  # openvino is slow to import

                openvino_weights.optimize_weights(version / "audio_encoder.xml", quantize=True)
        else:
            if "thinker_config" not in read_json_file(read / "config.json"):
                environments.run(ENVIRONMENT, "export.isolated.qwen3_asr_layout", str(read), folder)
                read = Path(folder)
            write_gguf(read, version / "model.gguf", kind)
            write_gguf(read, version / "mmproj.gguf", "f16", projector=True)
            link_libraries(fetch_multimodal_library(default_cache()), version / "llama.cpp" / "mtmd")
    link_libraries(fetch_libraries(default_cache(), "cpu"), version / "llama.cpp")
    return {"engine": "llamacpp", "family": options["family"]}
