"""Writes a small VoxCPM model with random weights to a folder, in the layout of the published models.

Run it in .venv-voice: `python -m tests.support.tiny_voxcpm FOLDER 0.5|1.5|2`. The model speaks at least four patches of
audio (0.3 to 0.6 s) for a text, and ends at a random patch after those.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from backends.speech import voxcpm_process
from backends.speech.voxcpm_process import VoxCPM2Model, VoxCPMModel

TEXT = [
    "It was the best of times, it was the worst of times; it was the age of wisdom.",
    "Call me back tomorrow: the meeting starts at 9.30, not at ten! Is this your voice?",
    "Sphinx of black quartz, judge my vow! Pack my box with five dozen liquor jugs, please.",
    "你好，世界！今天天气很好，我们一起去公园散步吧。你好，朋友。",
]

# The published models have these tokens at IDs 101 to 104.
AUDIO_TOKENS = ["<|audio_start|>", "<|audio_end|>", "<|audio_prompt_start|>", "<|audio_prompt_end|>"]

# What differs between the published models, with smaller sizes, but with their sample rates and patch sizes.
VARIANTS: dict[str, dict[str, Any]] = {
    "0.5": {
        "architecture": "voxcpm",
        "patch_size": 2,
        "max_length": 4096,
        "audio_vae_config": {
            "encoder_rates": [2, 5, 8, 8],
            "decoder_rates": [8, 8, 5, 2],
            "decoder_dim": 64,
            "sample_rate": 16000,
        },
    },
    "1.5": {
        "architecture": "voxcpm",
        "patch_size": 4,
        "max_length": 4096,
        "audio_vae_config": {
            "encoder_rates": [2, 3, 6, 7, 7],
            "decoder_rates": [7, 7, 6, 3, 2],
            "decoder_dim": 64,
            "sample_rate": 44100,
        },
    },
    "2": {
        "architecture": "voxcpm2",
        "patch_size": 4,
        "max_length": 8192,
        "residual_lm_no_rope": True,
        "audio_vae_config": {
            "encoder_rates": [2, 5, 8, 8],
            "decoder_rates": [8, 6, 5, 2, 2, 2],
            "decoder_dim": 128,
            "sample_rate": 16000,
            "out_sample_rate": 48000,
            "sr_bin_boundaries": [20000, 30000, 40000],
            "cond_type": "scale_bias",
        },
    },
}


def write_model(target: Path, variant: str) -> None:
    """Write the model `variant` ("0.5", "1.5" or "2") to a new folder, with the files that its publisher provides."""
    target.mkdir(parents=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(target / "tokenizer.json"))
    config = make_config(variant, tokenizer.get_vocab_size())
    (target / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    kind = "VoxCPM2Tokenizer" if variant == "2" else "LlamaTokenizerFast"
    tokens = {"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True}
    (target / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")

    torch.manual_seed(0)
    torch.set_num_threads(1)
    is_second = config["architecture"] == "voxcpm2"
    model_class = VoxCPM2Model if is_second else VoxCPMModel
    module = sys.modules[model_class.__module__]
    parsed = module.VoxCPMConfig.model_validate(config | {"dtype": "float32"})
    vae = (module.AudioVAEV2 if is_second else module.AudioVAE)(parsed.audio_vae_config)
    model = model_class(parsed, voxcpm_process.Tokenizer(target / "tokenizer.json"), vae, device="cpu").eval()
    randomize(model)
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    decoder = {name.removeprefix("audio_vae."): w for name, w in weights.items() if name.startswith("audio_vae.")}
    torch.save({"state_dict": decoder}, target / "audiovae.pth")
    rest = {name: w.to(torch.bfloat16) for name, w in weights.items() if not name.startswith("audio_vae.")}
    if variant == "0.5":
        torch.save({"state_dict": rest}, target / "pytorch_model.bin")
    else:
        save_file(rest, target / "model.safetensors")


def make_tokenizer() -> Tokenizer:
    """Return a tokenizer like MiniCPM4's: byte-pair encoding without a pre-tokenizer, with bytes for rare letters."""
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizer
    trained.train_from_iterator(TEXT * 5, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    symbols = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    symbols[101:101] = AUDIO_TOKENS
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*symbols, *learnt["vocab"]]))}
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [AddedToken(token, special=True, normalized=False) for token in [*symbols[:3], *AUDIO_TOKENS]]
    tokenizer.add_special_tokens(special)
    return tokenizer


def make_config(variant: str, vocabulary_size: int) -> dict[str, Any]:
    """Return config.json. A published one has more layers, larger sizes, "dtype": "bfloat16" and "device": "cuda"."""
    part = {"hidden_dim": 64, "ffn_dim": 128, "num_heads": 4, "num_layers": 2, "kv_channels": 16}
    cfm = {"sigma_min": 1e-06, "solver": "euler", "t_scheduler": "log-norm", "inference_cfg_rate": 2.0}
    config = {
        "lm_config": {
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "max_position_embeddings": 32768,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000,
            "kv_channels": 16,
            "rope_scaling": {
                "type": "longrope",
                "long_factor": [1.0] * 8,
                "short_factor": [1.0] * 8,
                "original_max_position_embeddings": 32768,
            },
            "vocab_size": vocabulary_size,
            "scale_emb": 12,
            "dim_model_base": 256,
            "scale_depth": 1.4,
            "use_mup": False,
        },
        "feat_dim": 16,
        "residual_lm_num_layers": 1,
        "scalar_quantization_latent_dim": 32,
        "scalar_quantization_scale": 9,
        "encoder_config": part,
        "dit_config": part | {"cfm_config": cfm},
        "device": "cuda",
        "dtype": "bfloat16",
    }
    config |= VARIANTS[variant]
    config["audio_vae_config"] |= {"encoder_dim": 8, "latent_dim": 16, "depthwise": True}
    return config


@torch.no_grad()
def randomize(model: VoxCPMModel | VoxCPM2Model) -> None:
    """Set random weights with which voices and texts differ, at an RMS level of about 0.1."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and not name.endswith(("alpha", "weight_g", "embed_tokens.weight", "_embed.weight")):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 1.4 / weight[0].numel() ** 0.5)
    loudness = model.generate("Hello world.", max_len=10).pow(2).mean().sqrt()
    last = [weight for name, weight in model.audio_vae.decoder.named_parameters() if name.endswith("weight_g")][-1]
    last.mul_(0.1 / loudness)


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), sys.argv[2])
