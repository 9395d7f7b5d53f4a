"""Writes a small vision model with two text layers and random weights, in the layout of the published model.

Run it in .venv-openvino: `python -m tests.support.tiny_vision_language TOKENIZER_JSON TARGET [KIND]`. TARGET is the
folder to write. KIND is `qwen2_5_vl` (Qwen2.5-VL, the default) or `qwen3_vl` (Qwen3-VL). The model's output is
meaningless, but depends on the image.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

_IMAGE_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_heads": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}

# With these limits, an image takes 4 to 64 tokens in Qwen2.5-VL, and 4 to 49 in Qwen3-VL, unless it is very narrow.
_PIXELS = {"min_pixels": 56 * 56, "max_pixels": 224 * 224}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a ChatML model, with the image tokens and the chat template added."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": _IMAGE_TOKENS})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(kind: str, tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    torch.manual_seed(0)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    tokens = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(tokens)), strict=True))
    text = _TEXT | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    model = (_qwen3 if kind == "qwen3_vl" else _qwen2_5)(text, ids).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # with the default initialization, all outputs would be alike
            if weight.dim() >= 2:
                weight.normal_(0, 1.0 if "embed_tokens" in name else 0.3)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _qwen2_5(text: dict[str, Any], ids: dict[str, int]) -> torch.nn.Module:
    text = text | {"rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    vision = _VISION | {"depth": 2, "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids))


def _qwen3(text: dict[str, Any], ids: dict[str, int]) -> torch.nn.Module:
    scaling = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    text = text | {"head_dim": 16, "rope_theta": 5e6, "rope_scaling": scaling}
    vision = _VISION | {"depth": 3, "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(vision_config=vision, text_config=text, **ids))


def main() -> None:
    target, kind = Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "qwen2_5_vl"
    tokenizer = make_tokenizer(sys.argv[1])
    model = make_model(kind, tokenizer)
    model.save_pretrained(target)
    # As published. Transformers 4 writes the architecture of Qwen2.5-VL into its text part.
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = [type(model).__name__]
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save_pretrained(target)
    Qwen2VLImageProcessor(patch_size=16 if kind == "qwen3_vl" else 14, **_PIXELS).save_pretrained(target)
    preprocessor = json.loads((target / "preprocessor_config.json").read_text(encoding="utf-8"))
    preprocessor["processor_class"] = "Qwen3VLProcessor" if kind == "qwen3_vl" else "Qwen2_5_VLProcessor"
    (target / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")


if __name__ == "__main__":
    main()
