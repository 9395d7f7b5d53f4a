"""Reads how an encoder is used from the files that sentence-transformers writes: pooling, prompts and limits."""

import json
import re
from collections.abc import Mapping
from typing import Any

from export.catalog import load_catalog
from export.fetch import ExportError
from export.model_info import ModelInfo
from export.sources.model_files import ModelFiles, read_json

_MAX_TOKENS = 8_192

# An encoder computes all tokens of a text at once, and its attention grows with their square.
_MAX_DECODER_TOKENS = 2_048

_POOLINGS = {
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_QUERY_NAMES, _DOCUMENT_NAMES = ("query",), ("document", "passage")

# The publishers of these models say only in their documentation which prompts they need.
_UNWRITTEN_PROMPTS = (
    (r"\be5-(small|base|large)", {"query_prompt": "query: ", "document_prompt": "passage: "}),
    (r"\bbge-\w+-en", {"query_prompt": "Represent this sentence for searching relevant passages: "}),
    (r"\bbge-\w+-zh", {"query_prompt": "为这个句子生成表示以用于检索相关文章："}),
)


def embedding_parameters(id: str, info: ModelInfo, files: ModelFiles) -> dict[str, str]:
    """Return the parameters in config.pbtxt of an embedding model. Raises ExportError if it needs other modules."""
    modules = _modules(files)
    if unsupported := [kind for kind in modules if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise ExportError(f"{id}: its module {unsupported[0]} is not supported; only pooling and normalization are")
    pooling = _pooling(id, files, modules.get("Pooling", ""))
    parameters = {
        "context_length": str(_context(info, files)),
        "pooling": pooling,
        "normalize": "true" if "Normalize" in modules or not modules else "false",
    }
    return parameters | _prompts(id, files)


def rerank_parameters(id: str, info: ModelInfo, files: ModelFiles) -> dict[str, str]:
    """Return the parameters in config.pbtxt of a cross-encoder. Raises ExportError if it has several labels."""
    config = read_json(files, "config.json")
    labels = config.get("num_labels") or len(config.get("id2label") or {"0": ""})
    if labels != 1:
        raise ExportError(f"{id}: a reranker has one output, and this classifier has {labels}")
    return {"context_length": str(_context(info, files)), "pooling": "none"}


def language_model_reranker_parameters() -> dict[str, str]:
    """Return the parameters of rerankers that are language models, which are those of Qwen3-Reranker."""
    known = load_catalog()["qwen3-reranker-0.6b"].parameters
    return {name: known[name] for name in ("context_length", "pooling", "template")}


def is_language_model_reranker(id: str, info: ModelInfo) -> bool:
    """Return whether a causal language model is a reranker of the kind of Qwen3-Reranker."""
    return info.architecture == "Qwen3ForCausalLM" and "reranker" in id.lower()


def _modules(files: ModelFiles) -> dict[str, str]:
    """Return the kinds of the modules in modules.json → their folders; empty if there is no such file."""
    if "modules.json" not in files.sizes:
        return {}
    try:
        listed: list[dict[str, Any]] = json.loads(files.read("modules.json"))
        return {str(module["type"]).rpartition(".")[2]: str(module.get("path", "")) for module in listed}
    except (ValueError, TypeError, KeyError) as error:
        raise ExportError(f"modules.json is not valid: {error}") from error


def _pooling(id: str, files: ModelFiles, folder: str) -> str:
    config = read_json(files, f"{folder}/config.json") if folder else {}
    modes = [config["pooling_mode"]] if isinstance(config.get("pooling_mode"), str) else []
    modes += [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if not config:
        return "mean"
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ExportError(f"{id}: its pooling ({', '.join(modes) or 'none'}) is not supported")
    return _POOLINGS[modes[0]]


def _context(info: ModelInfo, files: ModelFiles) -> int:
    """Return the maximum number of tokens of a text."""
    limits = [info.context_length or 512]
    if info.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        limits[0] -= 2  # the first positions stand for padding
    sentence = read_json(files, "sentence_bert_config.json").get("max_seq_length")
    tokenizer = read_json(files, "tokenizer_config.json").get("model_max_length")
    limits += [limit for limit in (sentence, tokenizer) if isinstance(limit, int) and 0 < limit < 1 << 30]
    maximum = _MAX_DECODER_TOKENS if info.architecture.startswith("Qwen") else _MAX_TOKENS
    return max(8, min(*limits, maximum))


def _prompts(id: str, files: ModelFiles) -> dict[str, str]:
    prompts = read_json(files, "config_sentence_transformers.json").get("prompts")
    found: dict[str, str] = {}
    if isinstance(prompts, Mapping):
        for key, names in (("query_prompt", _QUERY_NAMES), ("document_prompt", _DOCUMENT_NAMES)):
            text = next((prompts[name] for name in names if isinstance(prompts.get(name), str)), "")
            found |= {key: text} if text else {}
    if found:
        return found
    return next((known for pattern, known in _UNWRITTEN_PROMPTS if re.search(pattern, id.lower())), {})
