"""Writes a small Qwen3-ASR model in the layout of the published models (Qwen/Qwen3-ASR-0.6B, of the package qwen-asr).

`python -m tests.support.tiny_qwen3_asr TOKENIZER_FOLDER TARGET [ANSWER]`, in .venv-asr. TOKENIZER_FOLDER has Qwen's
tokenizer.
Without ANSWER, the model has random weights: its output is meaningless, but depends on the audio and on the prompt.
With ANSWER, for example "language English<asr_text>Hello there", the model answers this text to any audio, and the part
behind <asr_text> if the request gives the language. No token may occur twice in ANSWER.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, WhisperFeatureExtractor

from export.isolated.qwen3_asr_package import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

_AUDIO_TOKENS = {
    "audio_bos_token": "<|audio_start|>",
    "audio_token": "<|audio_pad|>",
    "audio_eos_token": "<|audio_end|>",
}
_TEXT_TOKEN = "<asr_text>"
_LANGUAGES = ["Chinese", "English", "Cantonese", "German"]

_AUDIO = {
    "num_mel_bins": 128,
    "encoder_layers": 4,  # as many as llama.cpp's converter needs to know all names
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "d_model": 16,
    "output_dim": 32,
    "downsample_hidden_size": 8,
    "n_window": 50,
    "n_window_infer": 800,
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 65536,
    "rope_theta": 1_000_000,
    "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
}

CHAT_TEMPLATE = (
    "<|im_start|>system\n"
    "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "<|im_end|>\n<|im_start|>user\n"
    "{% for m in messages if m.role == 'user' %}{% for part in m.content if part.type == 'audio' %}"
    "<|audio_start|><|audio_pad|><|audio_end|>"
    "{% endfor %}{% endfor %}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(tokenizer_folder: Path, target: Path, answer: str = "") -> None:
    """Write the model's files: all that a published folder has, with vocab.json and merges.txt as its tokenizer."""
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = _make_tokenizer(tokenizer_folder)
    model = _make_model(tokenizer)
    if answer:
        _make_constant(model, tokenizer, answer)
    model.to(torch.bfloat16).save_pretrained(target)
    WhisperFeatureExtractor(feature_size=_AUDIO["num_mel_bins"], return_attention_mask=True).save_pretrained(target)
    tokenizer.save_pretrained(target)
    tokenizer.save_vocabulary(str(target))
    for name in ("tokenizer.json", "chat_template.jinja"):  # the published folders have these in the older forms
        (target / name).unlink(missing_ok=True)
    (target / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}), encoding="utf-8")


def _make_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens=_AUDIO_TOKENS)
    tokenizer.add_tokens([_TEXT_TOKEN])
    return tokenizer


def _make_model(tokenizer: PreTrainedTokenizerBase) -> Qwen3ASRForConditionalGeneration:
    """Return a model with random weights, with the real numbers of frames in a chunk and of chunks in a window."""
    torch.manual_seed(0)
    names = ("audio_start_token_id", "audio_token_id", "audio_end_token_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(_AUDIO_TOKENS.values())), strict=True))
    thinker = {"audio_config": _AUDIO, "text_config": _TEXT | {"vocab_size": len(tokenizer)}, **ids}
    config = Qwen3ASRConfig(thinker_config=thinker, support_languages=_LANGUAGES)
    config.architectures = ["Qwen3ASRForConditionalGeneration"]
    model = Qwen3ASRForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # with the default initialization, all outputs would be alike
            if weight.dim() >= 2:
                weight.normal_(0, 1.0 if "embed_tokens" in name else 0.3)
    return model


def _make_constant(model: Qwen3ASRForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, answer: str) -> None:
    """Make the next token depend on the previous token alone, so that `answer` follows the prompt."""
    ids = [tokenizer.encode("\n")[-1], *tokenizer.encode(answer), tokenizer.convert_tokens_to_ids("<|im_end|>")]
    if len(set(ids)) != len(ids):
        raise ValueError("a token occurs twice in the answer")
    thinker = model.thinker
    with torch.no_grad():
        for layer in thinker.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        thinker.lm_head.weight.zero_()
        thinker.lm_head.weight[ids[1:]] = thinker.model.embed_tokens.weight[ids[:-1]]


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
