"""Writes a tiny GLM-ASR model with random weights, and prints what transformers answers with it. It runs in .venv-gguf.

`python -m tests.support.tiny_glm_asr write TOKENIZER_FOLDER TARGET`: TOKENIZER_FOLDER has SmolLM2's tokenizer.
`python -m tests.support.tiny_glm_asr answer FOLDER AUDIO.npy COUNT`: prints the text of COUNT tokens as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, GlmAsrConfig, GlmAsrForConditionalGeneration, WhisperFeatureExtractor

_TOKENS = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|end_of_audio|>", "<|pad|>"]
_BEFORE = "<|user|>\n<|begin_of_audio|>"
_AFTER = "<|end_of_audio|><|user|>\nPlease transcribe this audio into text<|assistant|>\n"
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}


def write(tokenizer_folder: Path, target: Path) -> None:
    """Write the model in the layout of transformers 5, as its publisher does."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": _TOKENS})
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.chat_template = None
    tokenizer.save_pretrained(target)
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>"])
    config = GlmAsrConfig(
        text_config={**_TEXT, "vocab_size": len(tokenizer), "rope_parameters": _ROPE, "eos_token_id": ends},
        audio_config={
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5},
        },
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    model = GlmAsrForConditionalGeneration(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 1.0 if "embed_tokens" in name else 2.0 / weight[0].numel() ** 0.5
            weight.normal_(std=scale) if weight.dim() > 1 else weight.add_(torch.randn_like(weight) * 0.1)
    model.to(torch.bfloat16).save_pretrained(target)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(target)


def answer(folder: Path, samples: np.ndarray, count: int) -> str:
    """Return the most probable text, in float32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GlmAsrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    features = WhisperFeatureExtractor(feature_size=128)(
        samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
    )
    inputs = {"input_features": features["input_features"], "input_features_mask": features["attention_mask"]}
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (_BEFORE, _AFTER))
    tokens: list[int] = []
    with torch.no_grad():
        number = len(model.get_audio_features(**inputs).pooler_output)
        ids = [*before, *[tokenizer.convert_tokens_to_ids("<|pad|>")] * number, *after]
        for _ in range(count):
            logits = model(input_ids=torch.tensor([ids + tokens]), **inputs).logits[0, -1]
            tokens.append(int(logits.argmax()))
    text: str = tokenizer.decode(tokens, skip_special_tokens=True)
    return text


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(answer(Path(sys.argv[2]), np.load(sys.argv[3]), int(sys.argv[4]))))
