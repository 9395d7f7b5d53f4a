"""Converters for GGUF models that run on llama.cpp: the file is used as it is."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jinja2 import TemplateSyntaxError
from jinja2.exceptions import SecurityError

from contract.chat_template import TemplateRejected, load_chat_template
from contract.paths import default_cache
from export.converters.generation_defaults import from_gguf
from export.converters.gguf import requantize
from export.converters.self_check import check_chat, recorded_reference
from export.converters.template_formats import infer_formats, template_of, unsupported_format
from export.fetch import ExportError
from export.gguf_header import GGUFHeader, read_header
from export.llamacpp import fetch_libraries, fetch_multimodal_library
from export.local_names import adapter_name
from export.memory import memory_limit

_MIN_TOKENS = 512

_MAX_ROW_TOKENS = 8_192
"""The maximum context of embedding and rerank models, whose texts are computed at once."""

# Values of llama_pooling_type.
_POOLINGS = {1: "mean", 2: "cls", 3: "last", 4: "rank"}

_SLOW_TYPES = ("Q4_1", "Q5_0", "Q5_1")


def link_gguf(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Link a GGUF file and llama.cpp's libraries into a version folder, and write the file's chat template.

    A file on another disk is not copied, but linked symbolically, so it must stay where it is. The option `requantize`
    is a type to which the weights are converted instead; `template` is a chat template that replaces the file's;
    `device` is `cpu`, `vulkan` or `cuda`; `mmproj` is the file of a projector, which gets the library that encodes
    images and audio; `adapters` are the files of LoRA adapters, as JSON. Raises ExportError if an adapter is one of
    another architecture.
    """
    header = read_header(source)
    if "requantize" in options:
        requantize(source, version / "model.gguf", options["requantize"])
    else:
        _advise_requantizing(header)
        _link_weights(source, version / "model.gguf")
    device = options.get("device", "cpu")
    link_libraries(fetch_libraries(default_cache(), device), version / "llama.cpp")
    if "mmproj" in options:
        _link_weights(Path(options["mmproj"]), version / "mmproj.gguf")
        link_libraries(fetch_multimodal_library(default_cache()), version / "llama.cpp" / "mtmd")
    adapters = [Path(path) for path in json.loads(options.get("adapters", "[]"))]
    for adapter in adapters:
        architecture = read_header(adapter).architecture
        if architecture != header.architecture:
            raise ExportError(f"{adapter} is an adapter for {architecture}, and the model is {header.architecture}")
        (version / "adapters").mkdir(exist_ok=True)
        _link_weights(adapter, version / "adapters" / f"{adapter_name(adapter)}.gguf")
    (version / "tokenizer_config.json").write_text(json.dumps(special_tokens(header)), encoding="utf-8")
    template = options.get("template") or template_of(header.metadata)
    write_template(template, version)
    found = parameters_of(header, template) | {"device": device.upper()}
    if "precision" not in options:  # the converter of a folder compares the model with the original
        check_chat(version, found, recorded_reference(options), options)
    return found | {"adapters": json.dumps([adapter_name(path) for path in adapters])} if adapters else found


def link_encoder(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Link a GGUF file of an embedding or rerank model and llama.cpp's libraries into a version folder.

    A file on another disk is not copied, but linked symbolically, so it must stay where it is.
    """
    header = read_header(source)
    _link_weights(source, version / "model.gguf")
    link_libraries(fetch_libraries(default_cache(), "cpu"), version / "llama.cpp")
    return encoder_parameters_of(header)


def task_of(header: GGUFHeader) -> Literal["chat", "embedding", "rerank"]:
    """Return the task of a model: embedding or rerank if its file says how to pool outputs, otherwise chat."""
    pooling = _pooling_of(header)
    return "chat" if pooling is None else "rerank" if pooling == "rank" else "embedding"


def _pooling_of(header: GGUFHeader) -> str | None:
    kind = header.metadata.get(f"{header.architecture}.pooling_type")
    if isinstance(kind, int) and kind in _POOLINGS:
        return _POOLINGS[kind]
    if header.has_classifier:
        return "rank"
    return "mean" if "bert" in header.architecture else None


def encoder_parameters_of(header: GGUFHeader) -> dict[str, str]:
    """Return the parameters for config.pbtxt of an embedding or rerank model."""
    pooling = _pooling_of(header) or "mean"
    context = min(header.integer("context_length", 0) or _MIN_TOKENS, _MAX_ROW_TOKENS)
    if context > (limit := _affordable_tokens(header)):
        print(f"note: the context is {limit:,} tokens instead of {context:,}: the outputs of more need too much memory")
        context = limit
    parameters = {
        "context_length": str(context),
        "pooling": pooling,
        "normalize": "false" if pooling == "rank" else "true",
    }
    if pooling != "rank":
        width = header.integer("embedding_length_out", 0) or header.integer("embedding_length", 0)
        parameters["dimensions"] = str(width)
    template = header.metadata.get("tokenizer.chat_template.rerank")
    if isinstance(template, str) and pooling == "rank":
        if not 0 <= template.find("{query}") < template.find("{document}"):
            raise ExportError("the template for rerank in the file does not have {query} before {document}")
        parameters["template"] = template
    return parameters


def _affordable_tokens(header: GGUFHeader) -> int:
    """Return for how many tokens the outputs fit into an eighth of the memory.

    llama.cpp reserves the logits of all tokens of a batch, although an encoder has none, and decoders compute them.
    """
    vocabulary = header.metadata.get("tokenizer.ggml.tokens")
    size = len(vocabulary) if isinstance(vocabulary, list) else 0
    copies = 1 if "bert" in header.architecture else 2
    return max(_MIN_TOKENS, memory_limit() // 8 // max(1, 4 * size * copies) // 64 * 64)


def _advise_requantizing(header: GGUFHeader) -> None:
    if header.file_type in _SLOW_TYPES:
        print(
            f"note: llama.cpp has no fast kernels for {header.file_type}. With --requantize, it gets the weights in "
            "Q8_0: SmolLM2-135M in Q4_1 then reads prompts 2.2 times as fast, and serves 8 requests 1.25 times as fast"
        )


def link_libraries(source: Path, target: Path) -> None:
    """Link llama.cpp's libraries into a folder."""
    for library in source.rglob("*.so"):
        linked = target / library.relative_to(source)
        linked.parent.mkdir(parents=True, exist_ok=True)
        _link(library, linked)


def _link_weights(source: Path, target: Path) -> None:
    if not source.is_file():
        flag = {"model.gguf": "", "mmproj.gguf": " with --mmproj"}.get(target.name, " with --lora")
        raise ExportError(f"{source} was not found. Give its new path{flag}")
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_template(template: str, version: Path) -> None:
    """Write and try a chat template. Raises ExportError if it is not valid."""
    (version / "chat_template.jinja").write_text(template, encoding="utf-8")
    try:
        load_chat_template(version).render([{"role": "user", "content": "Hello"}])
    except TemplateSyntaxError as error:
        raise ExportError(f"the chat template is not valid: {error}") from error
    except TemplateRejected as error:
        if isinstance(error.__cause__, SecurityError):
            raise ExportError(f"the chat template does what templates must not do: {error.__cause__}") from error
        print(f"warning: {error}")
    if family := unsupported_format(template):
        print(
            f"warning: the tool format of {family}, which this model's template uses, is not supported. Tool calls are "
            "recognized only with 'tool_choice' set to 'required' or a function"
        )


def special_tokens(header: GGUFHeader) -> dict[str, str]:
    """Return the texts of the tokens that begin and end a text, which chat templates refer to."""
    tokens, found = header.metadata.get("tokenizer.ggml.tokens"), {}
    if not isinstance(tokens, list):
        raise ExportError("the file has no vocabulary ('tokenizer.ggml.tokens')")
    for name in ("bos", "eos"):
        id = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(id, int) and 0 <= id < len(tokens):
            found[f"{name}_token"] = tokens[id]
    return found


def parameters_of(header: GGUFHeader, template: str) -> dict[str, str]:
    """Return the parameters for config.pbtxt that the header and the chat template determine."""
    return {
        "engine": "llamacpp",
        "context_length": str(header.integer("context_length", 0) or _MIN_TOKENS),
        "kv_bytes_per_token": str(header.kv_bytes_per_token),
        **infer_formats(template),
        **from_gguf(header.metadata),
    }
