"""Run in .venv-onnx: `python -m tests.support.tiny_encoder TOKENIZER_FOLDER TARGET KIND`.

Writes an encoder with two layers and random weights, as sentence-transformers does. KIND is a key of `_KINDS`.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

# Kind → model type, pooling, and further fields of the configuration.
_KINDS = {
    "bert": ("bert", "cls_token", {}),
    "mpnet": ("mpnet", "mean_tokens", {"max_position_embeddings": 514}),
    "xlm-roberta": ("xlm-roberta", "mean_tokens", {"max_position_embeddings": 514}),
    "modernbert": ("modernbert", "mean_tokens", {"max_position_embeddings": 1024, "reference_compile": False}),
    "qwen3": ("qwen3", "lasttoken", {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096}),
    "cross-encoder": ("bert", "", {"num_labels": 1}),
}
_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_MODULES = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")


def write_encoder(tokenizer_folder: Path, target: Path, kind: str) -> None:
    torch.manual_seed(1)
    model_type, pooling, fields = _KINDS[kind]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    specials = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    config = AutoConfig.for_model(model_type, **_SIZES | specials | fields, vocab_size=len(tokenizer))
    kind_of_model = AutoModel if pooling else AutoModelForSequenceClassification
    model = kind_of_model.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.1)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    if pooling:
        _write_modules(target, pooling)


def _write_modules(target: Path, pooling: str) -> None:
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(_MODULES)
    ]
    (target / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (target / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "lasttoken")}
    (target / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
    prompts = {"prompts": {"query": "Instruct: find it\nQuery:", "document": ""}}
    (target / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")


if __name__ == "__main__":
    write_encoder(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
