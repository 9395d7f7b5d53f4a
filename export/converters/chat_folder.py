"""Converters for chat models in a publisher's folder: to OpenVINO's format, or to GGUF for llama.cpp.

The conversion runs in an environment with torch. It reads a copy of the folder that has links to the weights, but no
code and no pickle files, unless the option `trust_remote_code` is set.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.paths import CHECKOUT, default_cache
from export import environments
from export.converters.generation_defaults import from_generation_config
from export.converters.gguf_folder import ENVIRONMENT, write_gguf
from export.converters.llamacpp import link_gguf, write_template
from export.converters.readable_folder import read_json_file, readable_folder
from export.converters.self_check import Reference, check_chat
from export.converters.template_formats import PLAIN_TEMPLATE, infer_formats
from export.fetch import ExportError
from export.gguf_header import projector_image_tokens, read_header
from export.llamacpp import fetch_libraries

_OPENVINO = ".venv-openvino"

# LlamaFileType's MOSTLY_Q4_K_M.
_Q4_K_M = "15"


def convert_to_openvino(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a folder for OpenVINO GenAI.

    Options: `precision` (int8, int4 or f16), `trust_remote_code`, and `force`, with which a loss of quality is only
    reported. Raises ExportError.
    """
    precision = options["precision"]
    with readable_folder(source, options) as read:
        environments.run(
            _OPENVINO, "export.isolated.openvino_chat", str(read), str(version), precision, *_trust(options)
        )
        reference = _reference(_OPENVINO, read, options)
        template, generation = chat_template(read), read_json_file(read / "generation_config.json")
    if precision != "int4":
        from export.converters import openvino_weights  # openvino is slow to import

        openvino_weights.optimize_weights(version / "openvino_model.xml", quantize=precision == "int8")
    write_template(template, version)
    config = read_json_file(version / "config.json")
    _write_end_tokens(version, generation or read_json_file(version / "generation_config.json"), config)
    parameters = {
        "engine": "openvino",
        "context_length": options["context_length"],
        "kv_bytes_per_token": options["kv_bytes_per_token"],
        **infer_formats(template),
        **from_generation_config(generation),
    }
    check_chat(version, parameters, reference, options)
    return parameters


def convert_to_gguf(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a folder to a GGUF file for llama.cpp, and link it and llama.cpp's libraries.

    The options are those of `convert_to_openvino` and `link_gguf`, and `projector`, with which the part of the model
    that encodes images or audio becomes the projector, unless `mmproj` names one. Raises ExportError.
    """
    with readable_folder(source, options) as read, tempfile.TemporaryDirectory(dir=version.parent) as folder:
        file = Path(folder) / "model.gguf"
        kind = {"int8": "q8_0", "int4": "f16", "f16": "f16"}[options["precision"]]
        write_gguf(read, file, kind)
        projector = {}
        if "projector" in options and "mmproj" not in options:
            projector = {"mmproj": str(Path(folder) / "mmproj.gguf")}
            write_gguf(read, Path(projector["mmproj"]), "f16", projector=True)
        if options["precision"] == "int4":
            file = _quantized(file)
        reference = _reference(ENVIRONMENT, read, options)
        generation = read_json_file(read / "generation_config.json")
        parameters = link_gguf(file, version, {**options, **projector})
    parameters |= {"image_tokens": str(_image_tokens(version))} | from_generation_config(generation)
    check_chat(version, parameters, reference, options)
    return parameters


def _image_tokens(version: Path) -> int:
    projector = version / "mmproj.gguf"
    return projector_image_tokens(read_header(projector)) if projector.exists() else -1


def _trust(options: Mapping[str, str]) -> list[str]:
    return ["trust"] if "trust_remote_code" in options else []


def _reference(environment: str, source: Path, options: Mapping[str, str]) -> Reference | None:
    """Return what the original says (see `check_chat`), or None if transformers cannot run it."""
    text = Path(__file__).with_name("self_check.txt")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "reference.json"
        arguments = (str(source), str(target), str(text), *_trust(options))
        try:
            environments.run(environment, "export.isolated.chat_reference", *arguments)
        except ExportError as error:
            print(f"note: the original cannot be run for comparison: {str(error).strip().splitlines()[-1][:300]}")
            return None
        found: Reference = json.loads(target.read_text(encoding="utf-8"))
        return found


def _quantized(file: Path) -> Path:
    libraries, target = fetch_libraries(default_cache(), "cpu"), file.with_name("quantized.gguf")
    command = [sys.executable, "-m", "backends.common.llamacpp.quantize", str(libraries), str(file), str(target)]
    result = subprocess.run(
        [*command, _Q4_K_M], cwd=CHECKOUT, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if result.returncode:
        raise ExportError(f"The weights could not be quantized:\n{result.stderr[-1500:]}")
    file.unlink()
    return target


def chat_template(folder: Path) -> str:
    """Return the folder's chat template, or a plain one if it has none."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    config = read_json_file(folder / "tokenizer_config.json") | read_json_file(folder / "chat_template.json")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = next((each.get("template") for each in template if each.get("name") == "default"), None)
    return template if isinstance(template, str) else PLAIN_TEMPLATE


def _write_end_tokens(version: Path, generation: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write generation_config.json, where the backend finds `eos_token_id` as a list. Raises ExportError."""
    ends = generation.get("eos_token_id")
    ends = config.get("eos_token_id") if ends is None else ends
    ends = ends if isinstance(ends, list) else [ends]
    if not ends or not all(isinstance(end, int) for end in ends):
        raise ExportError("neither generation_config.json nor config.json has a valid 'eos_token_id'")
    content = {**generation, "eos_token_id": ends}
    (version / "generation_config.json").write_text(json.dumps(content), encoding="utf-8")
