"""Run in .venv-openvino: `python -m tests.support.tiny_chat_model TOKENIZER_FOLDER TARGET MODEL_TYPE`.

Writes a chat model with two layers and random weights, as a publisher does.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "n_positions": 2048,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "sliding_window": 512,
    "layer_types": None,
    "use_cache": True,
}


def write_model(tokenizer_folder: Path, target: Path, model_type: str) -> None:
    torch.manual_seed(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    known = AutoConfig.for_model(model_type).to_dict()
    sizes = {name: value for name, value in _SIZES.items() if name in known or name == "head_dim"}
    if model_type in ("gpt_oss", "gemma2", "gemma3_text", "cohere2"):
        sizes["layer_types"] = ["sliding_attention", "full_attention"]
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = AutoConfig.for_model(model_type, **sizes, **ends, vocab_size=len(tokenizer))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # with the default initialization, all tokens would be equally likely
            if weight.dim() > 1:
                weight.normal_(0, 0.3)
    model.generation_config.eos_token_id = [2]
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    config_file = target / "config.json"
    content = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps(content | {"architectures": [type(model).__name__]}), encoding="utf-8")


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
