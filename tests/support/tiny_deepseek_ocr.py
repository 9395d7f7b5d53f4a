"""Writes tiny DeepSeek-OCR models with random weights, in the layouts of their publisher's code.

Run it in .venv-gguf: `python -m tests.support.tiny_deepseek_ocr TOKENIZER_FOLDER TARGET KIND`. TOKENIZER_FOLDER has the
tokenizer of SmolLM2. The output of the models is meaningless, but depends on the image.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    DeepseekOcr2Config,
    DeepseekOcr2ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    UnlimitedOcrConfig,
    UnlimitedOcrForConditionalGeneration,
)

_TOKENS = ["<image>", "<|grounding|>"]

_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 4096,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


_SAM: dict[str, Any] = {"layers": 3, "width": 32, "heads": 2, "downsample_channels": [32, 64]}
_DEEPSEEK_TEXT: dict[str, Any] = {
    **_TEXT,
    "num_key_value_heads": 2,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def _sam_config() -> dict[str, Any]:
    return {
        "hidden_size": _SAM["width"],
        "output_channels": 16,
        "num_hidden_layers": _SAM["layers"],
        "num_attention_heads": _SAM["heads"],
        "mlp_dim": 4 * _SAM["width"],
        "downsample_channels": _SAM["downsample_channels"],
        "global_attn_indexes": [2],
    }


def _write_deepseek_config(
    target: Path, architecture: str, vocabulary: int, width: dict[str, Any], **vision: Any
) -> None:
    language = {
        **_DEEPSEEK_TEXT,
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "vocab_size": vocabulary,
        "use_mla": False,
        "kv_lora_rank": None,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0,
        "v_head_dim": 0,
    }
    config = {
        "architectures": [architecture],
        "model_type": "deepseek_vl_v2",
        "language_config": language,
        "vision_config": {"image_size": 1024, "model_type": "vision", "width": {"sam_vit_b": _SAM, **width}, **vision},
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "n_embed": _TEXT["hidden_size"],
        },
    }
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_token": "<image>", "patch_size": 16}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (target / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")


def write_deepseek_ocr(tokenizer_folder: Path, target: Path) -> None:
    """Write a DeepSeek-OCR model in the layout of its publisher's code: DeepseekOCRForCausalLM."""
    tokenizer = _write_tokenizer(tokenizer_folder, target, _TOKENS)
    _write_model(UnlimitedOcrForConditionalGeneration(deepseek_ocr_config(tokenizer)), target)
    config, tensors = _load(target)
    tensors["model.vision_model.embeddings.patch_embedding.weight"] = torch.zeros(64, 3, 14, 14, dtype=torch.bfloat16)
    _save(target, config, tensors)
    clip = {"width": 64, "layers": 4, "heads": 2, "image_size": 224, "patch_size": 14}
    _write_deepseek_config(target, "DeepseekOCRForCausalLM", len(tokenizer), {"clip-l-14-224": clip})


def deepseek_ocr_config(tokenizer: PreTrainedTokenizerBase) -> UnlimitedOcrConfig:
    """Return DeepSeek-OCR's configuration in transformers: its derivative's, with a window longer than any text."""
    clip = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    return UnlimitedOcrConfig(
        text_config={
            **_DEEPSEEK_TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": _ROPE,
            "sliding_window": _TEXT["max_position_embeddings"],
        },
        vision_config={"sam_config": _sam_config(), "encoder_config": clip},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )


def deepseek_ocr2_config(tokenizer: PreTrainedTokenizerBase) -> DeepseekOcr2Config:
    """Return DeepSeek-OCR-2's configuration in transformers."""
    encoder = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }
    return DeepseekOcr2Config(
        text_config={
            **_DEEPSEEK_TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": _ROPE,
            "mlp_layer_types": ["dense", "sparse"],
        },
        vision_config={"sam_config": _sam_config(), "encoder_config": encoder},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )


def write_deepseek_ocr2(tokenizer_folder: Path, target: Path) -> None:
    """Write a DeepSeek-OCR-2 model in the layout of its publisher's code: DeepseekOCR2ForCausalLM."""
    tokenizer = _write_tokenizer(tokenizer_folder, target, _TOKENS)
    _write_model(DeepseekOcr2ForConditionalGeneration(deepseek_ocr2_config(tokenizer)), target)
    sizes = {"layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    _write_deepseek_config(target, "DeepseekOCR2ForCausalLM", len(tokenizer), {"qwen2-0-5b": {"dim": 64}}, **sizes)


def _write_tokenizer(source: Path, target: Path, tokens: list[str]) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>", *tokens]})
    tokenizer.chat_template = None  # as published
    tokenizer.save_pretrained(target)
    return tokenizer


def _write_model(model: PreTrainedModel, target: Path) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "pos_embed" not in name:
                parameter.normal_(std=1.2 / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.normal_(1, 0.1)
            else:
                parameter.normal_(std=0.1)
    model.to(torch.bfloat16).save_pretrained(target)


def _load(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(folder / "model.safetensors")


def _save(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "deepseek_ocr": write_deepseek_ocr,
    "deepseek_ocr2": write_deepseek_ocr2,
}

if __name__ == "__main__":
    KINDS[sys.argv[3]](Path(sys.argv[1]), Path(sys.argv[2]))
