"""Converter for GGUF chat models, to OpenVINO's format."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer
from tqdm import tqdm

from contract.paths import default_cache
from export.converters import gguf_tokenizer, openvino_detokenizer, openvino_weights
from export.converters.generation_defaults import from_gguf
from export.converters.self_check import Reference, check_chat, measure_losses, recorded_reference
from export.converters.template_formats import infer_formats, template_of
from export.fetch import ExportError
from export.gguf_header import read_header
from export.llamacpp import fetch_libraries

_ARCHITECTURES = ("llama", "qwen2", "qwen3")


def read_metadata(source: Path) -> dict[str, Any]:
    """Return the key-value section of a GGUF file."""
    return {key: field.contents() for key, field in GGUFReader(source).fields.items()}


def requantize(source: Path, target: Path, kind: str) -> None:
    """Rewrite a GGUF file with matrices in one type (`F16` or `Q8_0`), and vectors and odd matrices in float32.

    OpenVINO GenAI reads these types exactly, but misreads some of the mixed quantizations of published files.
    """
    reader, quantization = GGUFReader(source), GGMLQuantizationType[kind]
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    writer.add_file_type(LlamaFileType[f"MOSTLY_{kind}"])
    for key, field in reader.fields.items():
        is_written = key.startswith("GGUF.") or key in ("general.architecture", "general.file_type")
        if not is_written and field.contents() != []:  # the writer rejects empty lists
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in tqdm(reader.tensors, desc="  re-quantizing", unit="tensor", leave=False):
        try:
            values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        except NotImplementedError as error:
            raise ExportError(f"{source.name}: {tensor.tensor_type.name} weights cannot be converted") from error
        if values.ndim == 1 or values.shape[-1] % GGML_QUANT_SIZES[quantization][0]:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quantize(values, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert_gguf(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a GGUF chat model to OpenVINO's format with int8 weights, a tokenizer and a chat template."""
    metadata = read_metadata(source)
    architecture, template = metadata["general.architecture"], template_of(metadata)
    if architecture not in _ARCHITECTURES:
        raise ExportError(
            f"OpenVINO does not read GGUF files of the architecture {architecture}, only those of "
            f"{', '.join(_ARCHITECTURES)}. Export the model with --engine llamacpp"
        )
    try:
        tokenizer = gguf_tokenizer.build_tokenizer(metadata)
    except ValueError as error:
        raise ExportError(f"{error} by OpenVINO. Export the model with --engine llamacpp") from error
    requantized = version / "model.gguf"
    requantize(source, requantized, "F16")
    save_openvino(requantized)
    requantized.unlink()
    openvino_weights.optimize_weights(version / "openvino_model.xml")
    tokenizer.save(str(version / "tokenizer.json"))
    openvino_detokenizer.save_detokenizer(tokenizer, version)
    (version / "chat_template.jinja").write_text(template, encoding="utf-8")
    generation = {"eos_token_id": gguf_tokenizer.end_token_ids(metadata, tokenizer)}
    (version / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    (version / "config.json").write_text(json.dumps({"model_type": architecture} | generation), encoding="utf-8")
    parameters = {
        "engine": "openvino",
        "context_length": str(metadata[f"{architecture}.context_length"]),
        "kv_bytes_per_token": str(read_header(source).kv_bytes_per_token),
        **infer_formats(template),
        **from_gguf(metadata),
    }
    reference = recorded_reference(options) or _llamacpp_reference(source, tokenizer)
    check_chat(version, parameters, reference, options)
    return parameters


def _llamacpp_reference(source: Path, tokenizer: Tokenizer) -> Reference | None:
    """Return what llama.cpp computes with the file itself, or None if llama.cpp cannot be downloaded."""
    from export.converters.llamacpp import link_libraries  # imports this module

    text = Path(__file__).with_name("self_check.txt").read_text(encoding="utf-8")
    tokens = tokenizer.encode(text, add_special_tokens=False).ids[:512]
    with tempfile.TemporaryDirectory() as folder:
        try:
            link_libraries(fetch_libraries(default_cache(), "cpu"), Path(folder) / "llama.cpp")
        except ExportError as error:
            print(f"note: the model is not compared with llama.cpp: {error}")
            return None
        (Path(folder) / "model.gguf").symlink_to(source.resolve())
        parameters = {"engine": "llamacpp", "context_length": "1024", "cache_tokens": "1024"}
        return {"tokens": tokens, "losses": measure_losses(Path(folder), parameters, tokens)}


def save_openvino(path: Path) -> None:
    """Have the engine read a GGUF file and write it as openvino_model.xml and .bin in the same folder."""
    import openvino_genai  # takes a second to import

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 1
    openvino_genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", {"enable_save_ov_model": True})
