"""Catalog entries for users' own models: GGUF files, and folders as publishers write them."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from export.catalog import Entry, load_defaults
from export.converters.llamacpp import task_of
from export.encoder_info import (
    embedding_parameters,
    is_language_model_reranker,
    language_model_reranker_parameters,
    rerank_parameters,
)
from export.fetch import ExportError
from export.gguf_header import PROJECTOR_ARCHITECTURE, GGUFHeader
from export.local_names import free_name, is_remote
from export.memory import memory_limit
from export.model_info import VISION_TYPES, ModelInfo, Task, has_projector
from export.repository import read_record
from export.sources.model_files import ModelFiles, read_json

if TYPE_CHECKING:
    from export.resolve import Choices

_OVERHEAD = 300 << 20
"""What an engine needs apart from the weights and the KV cache."""

CACHE_BYTES = 256 << 20
"""The KV cache that a chat model needs at least."""

BYTES_PER_WEIGHT = {"f16": 2.0, "int8": 1.05, "int4": 0.65}
"""Precision → the size of a weight, with its share of the scales."""


_ENGLISH_WHISPER = 51_864
"""The size of the vocabulary of Whisper models that know only English."""


# Precision → CTranslate2's name of the type that it computes with.
_WHISPER_TYPES = {"auto": "int8", "int8": "int8", "f32": "float32"}


@dataclass(frozen=True)
class Facts:
    """What is known about a model from where it is, rather than from its configuration."""

    id: str
    origin: str
    """What to export again: a path, a URL, or a repository at a commit."""
    size: int = 0
    owner: str = ""
    license: str = "unknown"
    created: datetime.date = datetime.date(1970, 1, 1)


def gguf_entry(header: GGUFHeader, facts: Facts, choices: "Choices") -> Entry:
    """Return the entry for a GGUF file. Raises ExportError if the file is unusable or does not fit into memory."""
    if header.architecture == PROJECTOR_ARCHITECTURE:
        raise ExportError(
            f"{facts.id} is a projector, not a chat model. Add it to its model: trident serve MODEL --mmproj FILE"
        )
    if header.metadata.get("general.type") == "adapter":
        raise ExportError(
            f"{facts.id} is a LoRA adapter, not a model. Add it to its model: trident serve MODEL --lora FILE"
        )
    metadata, task = header.metadata, task_of(header)
    is_chat = task == "chat"
    # OpenVINO's conversion needs all weights in float16. A block of Q8_0 has 32 values in 34 bytes.
    bytes_per_weight = 2 if choices.engine == "openvino" else 34 / 32 if choices.requantize else 0
    size = (round(header.num_parameters * bytes_per_weight) if is_chat else 0) or facts.size
    if choices.projector and choices.projector.exists():
        size += choices.projector.stat().st_size
    kind = "converted" if bytes_per_weight else header.file_type
    _require_memory(facts.id, size, kind, CACHE_BYTES if is_chat else 0)
    # The file determines whether vectors are normalized.
    parameters = load_defaults("generation") if is_chat else load_defaults("encoder") | {"normalize": ""}
    return Entry(
        name=free_name(facts.id, "gguf"),
        task=task,
        id=facts.id,
        owned_by=str(metadata.get("general.organization") or metadata.get("general.author") or facts.owner or "user"),
        description=f"{header.architecture}, {_count(header.num_parameters)} parameters, {header.file_type}",
        license=str(metadata.get("general.license") or facts.license),
        created=facts.created,
        size=facts.size,
        backend="generation" if is_chat else "encoder",
        converter="llamacpp" if is_chat else "llamacpp-encoder",
        parameters={name: value for name, value in parameters.items() if value},
        weights=facts.origin,
        origin=facts.origin,
    )


def folder_entry(info: ModelInfo, files: ModelFiles, facts: Facts, choices: "Choices") -> Entry:
    """Return the entry for a publisher's folder. Raises ExportError if it is unusable or does not fit into memory."""
    if info.task == "chat" and not is_language_model_reranker(facts.id, info):
        return _chat_entry(info, facts, choices)
    if info.task == "transcription":
        recognizer = _recognizer_entry if info.family else _whisper_entry
        return recognizer(info, files, facts, choices)
    if info.task == "speech":
        return _speech_entry(info, facts, choices)
    return _encoder_entry(info, files, facts, choices)


def _encoder_entry(info: ModelInfo, files: ModelFiles, facts: Facts, choices: "Choices") -> Entry:
    if choices.precision in ("int4", "f16"):
        raise ExportError(f"{facts.id}: encoders have no {choices.precision} weights; use --precision int8 or f32")
    task: Literal["embedding", "rerank"] = "embedding" if info.task == "embedding" else "rerank"
    conversion = {"task": task, "precision": choices.precision} | ({"force": "true"} if choices.force else {})
    if info.task == "chat":
        parameters = language_model_reranker_parameters()
        if choices.precision == "int8":
            raise ExportError(f"{facts.id}: rerankers that are language models have only float32 weights")
        conversion |= {"score_tokens": "yes no", "precision": "f32"}
    elif task == "rerank":
        parameters = rerank_parameters(facts.id, info, files)
    else:
        parameters = embedding_parameters(facts.id, info, files)
    _require_memory(facts.id, info.num_parameters * 4, "float32", 0)
    conversion["parameters"] = json.dumps(parameters)
    return _entry(info, facts, task, "encoder", "encoder-folder", conversion=conversion, parameters=parameters)


def _whisper_entry(info: ModelInfo, files: ModelFiles, facts: Facts, choices: "Choices") -> Entry:
    if choices.precision not in _WHISPER_TYPES:
        raise ExportError(
            f"{facts.id}: Whisper models have no {choices.precision} weights; use --precision int8 or f32"
        )
    # Models that know only English cannot translate.
    is_english = read_json(files, "config.json").get("vocab_size") == _ENGLISH_WHISPER
    return _entry(
        info,
        facts,
        "transcription",
        "transcription",
        "whisper-folder",
        parameters={"compute_type": _WHISPER_TYPES[choices.precision]},
        capabilities=["word_timestamps"] if is_english else ["translate", "word_timestamps"],
    )


def _recognizer_entry(info: ModelInfo, files: ModelFiles, facts: Facts, choices: "Choices") -> Entry:
    engines = info.usable_engines
    precision = "int8" if choices.precision == "auto" else choices.precision
    if precision == "int4":
        raise ExportError(f"{facts.id}: speech recognizers have no int4 weights; use --precision int8, f16 or f32")
    _require_memory(facts.id, round(info.num_parameters * BYTES_PER_WEIGHT.get(precision, 4)), precision, 0)
    return _entry(
        info,
        facts,
        "transcription",
        "transcription",
        f"{engines[0]}-asr",
        conversion={"engines": " ".join(engines), "family": info.family, "precision": precision}
        | ({"precision_by": "memory"} if choices.precision == "auto" else {}),
        parameters={"family": info.family},
    )


def _speech_entry(info: ModelInfo, facts: Facts, choices: "Choices") -> Entry:
    if choices.precision != "auto":
        raise ExportError(f"{facts.id}: speech models keep the precision of their publisher; omit --precision")
    # The package loads the model in float32 before it converts it.
    _require_memory(facts.id, info.num_parameters * 4, "float32", 0)
    entry = _entry(
        info,
        facts,
        "speech",
        "speech",
        "voxcpm",
        conversion={"architecture": info.architecture},
        parameters={"engine": "voxcpm"},
        capabilities=info.accepts,
    )
    return entry.model_copy(update={"requires": ".venv-voice/voxcpm"})


def _chat_entry(info: ModelInfo, facts: Facts, choices: "Choices") -> Entry:
    if choices.precision == "f32":
        raise ExportError(f"{facts.id}: chat models have no float32 weights; use --precision f16")
    conversion = {
        "context_length": str(info.context_length or 2048),
        "kv_bytes_per_token": str(info.kv_bytes_per_token),
    }
    if info.model_type in VISION_TYPES and choices.precision == "f16" and choices.engine != "llamacpp":
        raise ExportError(
            f"{facts.id}: on OpenVINO, models with images have no f16 weights; use --precision int8 or int4, or add "
            "--engine llamacpp"
        )
    converter = "openvino-chat" if "openvino" in info.usable_engines else "llamacpp-chat"
    conversion |= {"engines": " ".join(info.usable_engines), "precision": _precision(facts.id, info, choices)}
    conversion |= {"precision_by": "memory"} if choices.precision == "auto" else {}
    if info.accepts and has_projector(info.architecture):
        conversion |= {"projector": "true"}
    if info.model_type in VISION_TYPES:
        converter = "vision-language"
    # The converter reads these.
    flags = {"trust_remote_code": choices.trust_remote_code, "force": choices.force}
    return _entry(
        info,
        facts,
        "chat",
        "generation",
        converter,
        conversion=conversion | {flag: "true" for flag, value in flags.items() if value},
        capabilities=info.accepts,
    )


def _entry(
    info: ModelInfo,
    facts: Facts,
    task: Task,
    backend: str,
    converter: str,
    *,
    conversion: Mapping[str, str] = MappingProxyType({}),
    parameters: Mapping[str, str] = MappingProxyType({}),
    capabilities: Sequence[str] = (),
) -> Entry:
    return Entry(
        name=free_name(facts.id.rpartition("/")[2], "own"),
        task=task,
        id=facts.id,
        owned_by=facts.owner or "user",
        description=f"{info.architecture}, {_count(info.num_parameters)} parameters",
        license=facts.license,
        created=facts.created,
        size=facts.size,
        backend=backend,
        converter=converter,
        conversion=dict(conversion),
        capabilities=list(capabilities),
        parameters=load_defaults(backend) | dict(parameters),
        weights=facts.origin,
        origin=facts.origin,
    )


def _precision(id: str, info: ModelInfo, choices: "Choices") -> str:
    """Return the chosen precision, or else the best of int8 and int4 with which the model fits into memory."""
    if choices.precision != "auto":
        size = round(info.num_parameters * BYTES_PER_WEIGHT[choices.precision])
        _require_memory(id, size, choices.precision, CACHE_BYTES)
        return choices.precision
    size = round(info.num_parameters * BYTES_PER_WEIGHT["int8"])
    if size + CACHE_BYTES + _OVERHEAD <= memory_limit():
        return "int8"
    _require_memory(id, round(info.num_parameters * BYTES_PER_WEIGHT["int4"]), "int4", CACHE_BYTES)
    return "int4"


def require_free_name(entry: Entry, repository: Path) -> None:
    """Raise ExportError if another model in the repository has the name of a user's own model."""
    folder = repository / entry.name
    if not folder.exists():
        return
    record = read_record(folder)
    if entry.origin is None:
        _require_catalog_model(entry, folder, str(record.get("origin") or ""))
        return
    previous = record.get("origin") or record.get("weights")
    if previous and _is_same(str(previous), str(entry.origin)):
        return
    other = previous or f"{folder}, which the export did not create"
    raise ExportError(f"{entry.origin} would have the same name as {other}. Rename it, or delete {folder}")


def _require_catalog_model(entry: Entry, folder: Path, origin: str) -> None:
    """Raise ExportError if a folder has a user's own model that is not the one of the catalog."""
    ids = {id.lower() for id in (*entry.ids, entry.hub or "")}
    if origin and origin.partition(":")[2].partition("@")[0].lower() not in ids:
        raise ExportError(
            f"{folder} has a model of your own, {origin}, whose name is now that of the catalog's {entry.id}. Rename "
            "or delete the folder"
        )


def _is_same(previous: str, origin: str) -> bool:
    """Return whether two origins are the same model, perhaps at another commit, or moved to another path."""
    if previous == origin:
        return True
    if is_remote(previous) or is_remote(origin):
        hubs = previous.startswith(("hf:", "ms:")) and origin.startswith(("hf:", "ms:"))
        return hubs and previous.partition("@")[0] == origin.partition("@")[0]
    return not Path(previous).exists() or (Path(origin).exists() and Path(previous).samefile(origin))


def _require_memory(id: str, size: int, kind: str, cache_bytes: int) -> None:
    total, needed = memory_limit(), size + cache_bytes + _OVERHEAD
    if needed > total:
        raise ExportError(
            f"{id} needs {needed / 1e9:.1f} GB of memory ({size / 1e9:.1f} GB for {kind} weights, "
            f"{cache_bytes / 1e9:.1f} GB for the KV cache), and this machine has {total / 1e9:.1f} GB. Use a smaller "
            "model or quantization"
        )


def memory_text(weight_bytes: int, cache_bytes: int) -> str:
    """Return how much memory a model needs, and for what."""
    total = (weight_bytes + cache_bytes + _OVERHEAD) / 1e9
    parts = {"weights": weight_bytes, "the KV cache": cache_bytes, "the engine": _OVERHEAD}
    shown = ", ".join(f"{size / 1e9:.1f} GB for {name}" for name, size in parts.items() if size)
    return f"{total:.1f} GB of {memory_limit() / 1e9:.1f} GB ({shown})"


def _count(number: int) -> str:
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M"
