"""Writes chat models for Triton's own vLLM backend, from what their publishers have: no weights are converted."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from export.converters.chat_folder import chat_template
from export.converters.generation_defaults import from_generation_config
from export.converters.readable_folder import read_json_file
from export.converters.template_formats import infer_formats
from export.fetch import ExportError
from export.repository import replacing
from export.resolve import Published
from export.targets import mounted
from export.targets.files import is_current, require_replaceable, write_config

# The tensors of src/model.py in Triton's vllm_backend, releases 24.12 and later: name → type and dimensions.
_INPUTS = {
    "text_input": (pb.TYPE_STRING, 1),
    "image": (pb.TYPE_STRING, -1),
    "stream": (pb.TYPE_BOOL, 1),
    "sampling_parameters": (pb.TYPE_STRING, 1),
    "exclude_input_in_output": (pb.TYPE_BOOL, 1),
    "return_finish_reason": (pb.TYPE_BOOL, 1),
    "return_num_input_tokens": (pb.TYPE_BOOL, 1),
    "return_num_output_tokens": (pb.TYPE_BOOL, 1),
}
_OUTPUTS = {
    "text_output": (pb.TYPE_STRING, -1),
    "finish_reason": (pb.TYPE_STRING, -1),
    "num_input_tokens": (pb.TYPE_UINT32, 1),
    "num_output_tokens": (pb.TYPE_UINT32, -1),
}
# A longer context needs more memory for the KV cache than most GPUs have.
_MAX_CONTEXT = 32_768
MEMORY_SHARE = 0.9
_TOKENIZER_FILES = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def write_for_vllm(
    model: Published, repository: Path, memory_share: float = MEMORY_SHARE, *, trust_remote_code: bool = False
) -> bool:
    """Write a chat model: config.pbtxt, 1/model.json with the arguments of vLLM's engine, and the tokenizer.

    vLLM loads the weights from the hub, or from the model's folder, if they are in one here. `memory_share` is what it
    takes of the GPU's memory. Return False if the model is up to date. Raises ExportError if it is not a chat model.
    """
    missing = [name for name in ("config.json", "tokenizer.json") if name not in model.files.sizes]
    if missing:
        raise ExportError(f"{model.id}: {missing[0]} is missing, which a chat model on vLLM needs")
    target = repository / model.name
    require_replaceable(target)
    source = {"model": f"{mounted(repository)}/{model.name}/weights"} if model.folder else {"model": model.id}
    source |= {"revision": model.revision} if model.revision else {}
    record = {
        "target": "vllm",
        **source,
        "memory_share": memory_share,
        "trust_remote_code": trust_remote_code,
        "files": {name: [size, _changed_at(model, name)] for name, size in model.files.sizes.items()},
    }
    if is_current(target, record):
        return False
    with replacing(target) as new:
        (new / "tokenizer").mkdir()
        for name in _TOKENIZER_FILES:
            if name in model.files.sizes:
                (new / "tokenizer" / name).write_bytes(model.files.read(name))
        config = read_json_file(new / "tokenizer" / "config.json")
        context = min(_context_length(model.id, config), _MAX_CONTEXT)
        template = chat_template(new / "tokenizer")
        (new / "tokenizer" / "chat_template.jinja").write_text(template, encoding="utf-8")
        if model.folder:
            _link_files(model.folder, model.files.sizes, new / "weights")
        arguments: dict[str, Any] = {
            **source,
            "max_model_len": context,
            "gpu_memory_utilization": memory_share,
            "disable_log_stats": True,
        } | ({"trust_remote_code": True} if trust_remote_code else {})
        (new / "1").mkdir()
        (new / "1" / "model.json").write_text(json.dumps(arguments, indent=1), encoding="utf-8")
        write_config(_config(model, new / "tokenizer", config, context), new, record)
    return True


def _changed_at(model: Published, name: str) -> int:
    """Return when a file was changed, which its size does not show; 0 for one on a hub, whose revision shows it."""
    return (model.folder / name).stat().st_mtime_ns if model.folder else 0


def _link_files(source: Path, names: Iterable[str], target: Path) -> None:
    """Link the files of a folder, some of which may be links themselves, as in the cache of the Hugging Face hub."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        path = (source / name).resolve()
        try:
            os.link(path, target / name)
        except OSError:
            shutil.copyfile(path, target / name)


def _context_length(id: str, config: dict[str, Any]) -> int:
    text = next((config[name] for name in ("text_config", "llm_config") if config.get(name)), config)
    found = text.get("max_position_embeddings")
    if not isinstance(found, int):
        raise ExportError(f"{id}: config.json does not say how long the context is (max_position_embeddings)")
    return found


def _config(model: Published, tokenizer: Path, config: dict[str, Any], context: int) -> pb.ModelConfig:
    written = pb.ModelConfig(name=model.name, backend="vllm", max_batch_size=0)
    written.model_transaction_policy.decoupled = True
    for name, (kind, size) in _INPUTS.items():
        written.input.add(name=name, data_type=kind, dims=[size], optional=name != "text_input")
    for name, (kind, size) in _OUTPUTS.items():
        written.output.add(name=name, data_type=kind, dims=[size])
    written.instance_group.add(kind=pb.ModelInstanceGroup.KIND_MODEL, count=1)
    parameters = {
        "task": "chat",
        "id": model.id,
        "owned_by": model.owner,
        "created": str(model.created),
        "capabilities": json.dumps(["vision"] if "vision_config" in config else []),
        "context_length": str(context),
        "tokenizer": "tokenizer",
        **infer_formats(chat_template(tokenizer)),
        **from_generation_config(read_json_file(tokenizer / "generation_config.json")),
    }
    for key, value in parameters.items():
        written.parameters[key].string_value = value
    return written
