"""Writes a tiny Fun-ASR-Nano model with random weights, as its publisher does.

Run it in .venv-asr: `python -m tests.support.tiny_fun_asr TOKENIZER_FOLDER TARGET`. TOKENIZER_FOLDER has Qwen's
tokenizer.
"""

import json
import sys
from pathlib import Path

import torch
import yaml
from transformers import AutoTokenizer, Qwen3Config

from export.isolated.openvino_fun_asr import _parts

_FRONTEND = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
}
_ENCODER = {
    "output_size": 32,
    "attention_heads": 2,
    "linear_units": 64,
    "num_blocks": 2,
    "tp_blocks": 1,
    "input_layer": "pe",
    "normalize_before": True,
    "kernel_size": 11,
    "sanm_shfit": 0,
}
_ADAPTOR = {"downsample_rate": 1, "ffn_dim": 64, "llm_dim": 32, "encoder_dim": 32, "n_layer": 2}
_LLM = "Qwen3-0.6B"


def write_model(tokenizer_folder: Path, target: Path) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.save_pretrained(target / _LLM)
    Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        eos_token_id=151645,
        bos_token_id=151643,
        architectures=["Qwen3ForCausalLM"],
    ).save_pretrained(target / _LLM)
    config = {
        "model": "FunASRNano",
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": _ENCODER,
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": _ADAPTOR,
        "llm": "Qwen3-0.6b",
        "llm_conf": {"hub": "hf", "init_param_path": _LLM},
        "frontend": "WavFrontend",
        "frontend_conf": _FRONTEND,
    }
    (target / "config.yaml").write_text(yaml.safe_dump(config))
    (target / "configuration.json").write_text(
        json.dumps({"framework": "pytorch", "task": "auto-speech-recognition", "model": {"type": "funasr"}})
    )
    parts = _parts(target)
    state = {f"{n}.{k}": v for n, m in vars(parts).items() for k, v in m.state_dict().items()}
    for k, v in state.items():
        if v.dim() >= 2:
            v.normal_(0, 1.0 if "embed_tokens" in k else 0.3)
    torch.save({"state_dict": state}, target / "model.pt")


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), Path(sys.argv[2]))
