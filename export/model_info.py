"""Reads what a model is, and which engines can run it, from the configuration in its folder, before any weights."""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.environments import pinned_version
from export.fetch import ExportError
from export.sources.model_files import ModelFiles, read_json, weight_files

Task = Literal["chat", "embedding", "rerank", "speech", "transcription"]

# Configurations name the context in different ways.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx", "model_max_length")

# The model types whose images the backend can process: see backends/generation/prompt/image_processor.py.
VISION_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava")

# The size of a weight with its share of the scales, in the only quantization that conversions can undo.
_MXFP4_BYTES = 0.53

# Architectures of speech recognizers that are language models → their family, and the engines that can run them.
_RECOGNIZERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "GlmAsrForConditionalGeneration": ("glm-asr", ("llamacpp",)),
    "Qwen3ASRForConditionalGeneration": ("qwen3-asr", ("openvino", "llamacpp")),
}

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class ModelInfo:
    """What a folder's configuration says about a model."""

    task: Task
    architecture: str
    model_type: str
    context_length: int
    """In tokens; 0 if the configuration does not say."""
    num_parameters: int
    kv_bytes_per_token: int
    remote_code: bool
    """Whether the model can only be loaded with Python code from its repository."""
    engines: Mapping[str, str]
    """The engines → "" or, for one that cannot run the model, why."""
    weights: tuple[str, ...] = ()
    """The files with the weights, if they are not the usual ones."""
    family: str = ""
    """Of speech recognizers that are language models: how they are prompted."""
    accepts: tuple[str, ...] = ()
    """What a chat model accepts besides text: `vision`, `audio` or both."""

    @property
    def usable_engines(self) -> list[str]:
        """The engines that can run the model."""
        return [engine for engine, reason in self.engines.items() if not reason]


def read_info(name: str, files: ModelFiles) -> ModelInfo:
    """Return what a model folder has. Raises ExportError if no engine can run it; the message says what it needs."""
    try:
        return _read(files)
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ExportError(f"{name}: config.json has values of an unexpected type ({error})") from error


def _read(files: ModelFiles) -> ModelInfo:
    config = read_json(files, "config.json")
    if not config and "config.yaml" in files.sizes:
        return _read_fun_asr(files)
    if not config:
        if "model_index.json" in files.sizes:
            raise ExportError("image generation models are served under a catalog name: see `trident list`")
        raise ExportError("it has no config.json, and no GGUF file: it is not a model that Trident can convert")
    if str(config.get("architecture", "")).startswith("voxcpm"):
        return _read_voxcpm(config, files)
    architecture, model_type = _architecture(config), str(config.get("model_type", ""))
    names = ("text_config", "llm_config", "lm_config", "language_config")
    text = next((config[name] for name in names if config.get(name)), config)
    size = sum(files.sizes[name] for name in weight_files(files))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype"))
    task = _task(architecture, files)
    code = config.get("auto_map") or {}
    needs_code = any(str(name).startswith("AutoModel") for name in code)
    quantization = _quantization(config)
    info = ModelInfo(
        task,
        architecture,
        model_type,
        next((value for key in _CONTEXT if isinstance(value := text.get(key), int)), 0),
        round(size / (_MXFP4_BYTES if quantization == "mxfp4" else _BYTES.get(dtype, 2))),
        kv_bytes_per_token(text),
        needs_code and (task != "chat" or model_type not in _native_types()),
        _engines(task, architecture, model_type),
        family=_RECOGNIZERS.get(architecture, ("",))[0],
        accepts=_accepts(task, architecture, model_type, config),
    )
    if not info.usable_engines:
        reasons = "; ".join(reason for reason in info.engines.values())
        raise ExportError(f"no engine here can run {architecture}: {reasons}")
    return info


def _read_voxcpm(config: Mapping[str, Any], files: ModelFiles) -> ModelInfo:
    architecture = str(config["architecture"])
    if architecture not in ("voxcpm", "voxcpm2"):
        raise ExportError(f"models of the architecture {architecture[:100]} are not supported")
    # Pickle files are read without running code, which suffices for these.
    alternatives = (("model.safetensors", "pytorch_model.bin"), ("audiovae.safetensors", "audiovae.pth"))
    weights = [next((name for name in names if name in files.sizes), names[0]) for names in alternatives]
    for name in (*weights, "tokenizer.json"):
        if name not in files.sizes:
            raise ExportError(f"{name} is missing")
    size = sum(files.sizes[name] for name in weights)
    return ModelInfo(
        "speech",
        architecture,
        architecture,
        0,
        size // 2,
        0,
        False,
        {"voxcpm": ""},
        weights=tuple(weights),
        accepts=("voice_cloning",),
    )


def _read_fun_asr(files: ModelFiles) -> ModelInfo:
    architecture = re.search(r"^model: *(\w+)", files.read("config.yaml").decode(errors="replace"), re.MULTILINE)
    if architecture is None or architecture[1] != "FunASRNano":
        raise ExportError("it has no config.json, and its config.yaml is not one of Fun-ASR-Nano")
    # The pickle file is read without running code, which suffices for this model.
    if "model.pt" not in files.sizes:
        raise ExportError("model.pt is missing")
    return ModelInfo(
        "transcription",
        architecture[1],
        "fun_asr",
        0,
        files.sizes["model.pt"] // 2,
        0,
        False,
        {"openvino": ""},
        weights=("model.pt", "config.yaml"),
        family="fun-asr",
    )


def _quantization(config: Mapping[str, Any]) -> str:
    """Return how the weights are quantized, if they are. Raises ExportError if they cannot be converted."""
    method = str((config.get("quantization_config") or {}).get("quant_method", ""))
    if method not in ("", "mxfp4"):
        raise ExportError(
            f"its weights are quantized with {method[:40]}, which cannot be converted. Use the unquantized model, or a "
            "GGUF file"
        )
    return method


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ExportError("config.json does not name its 'architectures'")
    return re.sub(r"[^\w.-]", "", names[0])[:100]


def _task(architecture: str, files: ModelFiles) -> Task:
    if architecture == "WhisperForConditionalGeneration" or architecture in _RECOGNIZERS:
        return "transcription"
    if architecture == "GlmasrModel":
        raise ExportError(
            "these are the files of GLM-ASR in its first layout. Use those in the layout of transformers, which the "
            "publisher's repository has had since the end of 2025"
        )
    if architecture.endswith("ForSequenceClassification"):
        return "rerank"
    if "modules.json" in files.sizes or "config_sentence_transformers.json" in files.sizes:
        return "embedding"
    if re.search(r"For(CausalLM|ConditionalGeneration)$|LMHeadModel$", architecture):
        return "chat"
    if re.search(r"(Model|ForMaskedLM)$", architecture):
        return "embedding"
    raise ExportError(f"models of the architecture {architecture} are not supported")


def kv_bytes_per_token(text: Mapping[str, Any]) -> int:
    """Return the size of a token's keys and values in all layers, in float16; 0 if the configuration does not say."""
    layers = text.get("num_hidden_layers") or text.get("n_layer") or 0
    heads = text.get("num_attention_heads") or text.get("n_head") or 0
    kv_heads, width = text.get("num_key_value_heads") or heads, text.get("hidden_size") or text.get("n_embd") or 0
    size = text.get("head_dim") or (width // heads if heads else 0)
    numbers = (layers, kv_heads, size)
    return 4 * layers * kv_heads * size if all(isinstance(number, int) for number in numbers) else 0


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("architectures.toml").read_text(encoding="utf-8"))


def _native_types() -> set[str]:
    """Return the model types that transformers has itself, so that their repositories' code is not needed."""
    return {*_table()["openvino"], *VISION_TYPES} - {"minicpm", "minicpm3"}


def _engines(task: Task, architecture: str, model_type: str) -> dict[str, str]:
    if task == "chat":
        openvino = "" if model_type in VISION_TYPES else _openvino_reason(model_type)
        return {"openvino": openvino, "llamacpp": _llamacpp_reason(architecture)}
    if architecture in _RECOGNIZERS:
        return dict.fromkeys(_RECOGNIZERS[architecture][1], "")
    return {"onnxruntime" if task in ("embedding", "rerank") else "openvino": ""}


def has_projector(architecture: str) -> bool:
    """Return whether llama.cpp's converter makes a projector from a model of this architecture."""
    return architecture in _table()["llamacpp"]["projectors"]


def _accepts(task: Task, architecture: str, model_type: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    if task != "chat" or not (model_type in VISION_TYPES or has_projector(architecture)):
        return ()
    parts = {"vision_config": "vision", "audio_config": "audio"}
    return tuple(kind for key, kind in parts.items() if config.get(key))


def _openvino_reason(model_type: str) -> str:
    """Return why OpenVINO cannot run a chat model, or nothing if it can."""
    window = _table()["openvino"].get(model_type)
    if window is None:
        return f"OpenVINO has no converter for the model type '{model_type}'"
    if window:
        first, last = window.split()
        pinned = pinned_version("openvino", "transformers")
        if not _version(first) <= _version(pinned) <= (*_version(last), 99):
            return f"OpenVINO's converter needs transformers {first} to {last} for it, and has {pinned}"
    return ""


def _llamacpp_reason(architecture: str) -> str:
    if architecture in _table()["llamacpp"]["architectures"] or has_projector(architecture):
        return ""
    return "llama.cpp's converter does not know it; a GGUF file of the model may exist, which needs none"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
