"""Run in .venv-openvino as `python -m tests.support.tiny_stable_diffusion TARGET`.

Writes a tiny Stable Diffusion 1.5 with random weights to TARGET, in the layout of diffusers. Its networks are those of
the original, with fewer layers and channels.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_WORDS = "a an the of cat dog red blue photo house tree car man woman sky sun moon city sea bird"
_LENGTH = 77


def byte_letters() -> list[str]:
    """Return the characters that represent the 256 possible bytes in the vocabularies of GPT-2 and CLIP."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def make_tokenizer() -> CLIPTokenizer:
    """Return a byte-level BPE tokenizer in which most of `_WORDS` are one token; other words are split."""
    letters = byte_letters()
    vocabulary = letters + [f"{letter}</w>" for letter in letters]
    merges = []
    for word in _WORDS.split():
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            if (joined := parts[0] + parts[1]) not in vocabulary:
                merges.append(f"{parts[0]} {parts[1]}")
                vocabulary.append(joined)
            parts = [joined, *parts[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        words, rules = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        words.write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}), encoding="utf-8")
        rules.write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return CLIPTokenizer(str(words), str(rules), model_max_length=_LENGTH)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_LENGTH,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    model = CLIPTextModel(config)
    with torch.no_grad():
        for (
            weight
        ) in model.parameters():  # with the default initialization, prompts would hardly differ in their effect
            if weight.dim() > 1:
                weight.normal_(0, 0.5)
    return model


def make_pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        sample_size=64,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


if __name__ == "__main__":
    make_pipeline().save_pretrained(sys.argv[1])
