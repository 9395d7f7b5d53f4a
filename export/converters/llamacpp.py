"""Converter for GGUF models that run on llama.cpp: the file is used as it is."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from jinja2 import TemplateSyntaxError

from contract.chat_template import TemplateRejected, load_chat_template
from contract.paths import default_cache
from export.converters.generation_defaults import from_gguf
from export.converters.template_formats import infer_formats, unsupported_format
from export.fetch import ExportError
from export.gguf_header import GGUFHeader, read_header
from export.llamacpp import fetch_libraries

CACHE_BYTES = 1 << 30
"""The size of the KV cache."""

_MIN_TOKENS = 512

# Chat template for a model without one, so that it can be used in chats too.
_PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def link_gguf(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Link a GGUF file and llama.cpp's libraries into a version folder, and write the file's chat template.

    A file on another disk is not copied, but linked symbolically, so it must stay where it is.
    """
    header = read_header(source)
    try:
        os.link(source, version / "model.gguf")
    except OSError:
        (version / "model.gguf").symlink_to(source.resolve())
    libraries = version / "llama.cpp"
    libraries.mkdir()
    for library in fetch_libraries(default_cache()).iterdir():
        _link(library, libraries / library.name)
    (version / "tokenizer_config.json").write_text(json.dumps(special_tokens(header)), encoding="utf-8")
    _write_template(header.metadata.get("tokenizer.chat_template") or "", version)
    return parameters_of(header)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_template(template: str, version: Path) -> None:
    """Write and try a chat template. Raises ExportError if it is not valid."""
    (version / "chat_template.jinja").write_text(template or _PLAIN, encoding="utf-8")
    try:
        load_chat_template(version).render([{"role": "user", "content": "Hello"}])
    except TemplateSyntaxError as error:
        raise ExportError(f"the chat template in the file is not valid: {error}") from error
    except TemplateRejected as error:
        print(f"warning: {error}")
    if family := unsupported_format(template):
        print(
            f"warning: the tool format of {family}, which this model's template uses, is not supported. Tool calls are "
            "recognized only with 'tool_choice' set to 'required' or a function"
        )


def special_tokens(header: GGUFHeader) -> dict[str, str]:
    """Return the texts of the tokens that begin and end a text, which chat templates refer to."""
    tokens, found = header.metadata.get("tokenizer.ggml.tokens") or [], {}
    for name in ("bos", "eos"):
        id = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(id, int) and 0 <= id < len(tokens):
            found[f"{name}_token"] = tokens[id]
    return found


def parameters_of(header: GGUFHeader) -> dict[str, str]:
    """Return the parameters for config.pbtxt that the header determines."""
    cache_tokens = max(_MIN_TOKENS, CACHE_BYTES // max(1, header.kv_bytes_per_token))
    trained = int(header.get("context_length", _MIN_TOKENS))
    context = min(trained, cache_tokens)
    return {
        "engine": "llamacpp",
        "context_length": str(context),
        "cache_tokens": str(cache_tokens),
        **infer_formats(header.metadata.get("tokenizer.chat_template") or ""),
        **from_gguf(header.metadata),
    }
