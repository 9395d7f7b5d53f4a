"""Run in .venv-openvino as `python -m tests.support.tiny_diffusion KIND TARGET`.

Writes a tiny image generation model with random weights to TARGET, in the layout of diffusers. KIND is sdxl, flux, lcm
or sd-turbo. The networks and schedulers are those of the originals, with fewer layers and channels. Stable Diffusion
1.5 is in tiny_stable_diffusion.py.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.support.tiny_stable_diffusion import make_tokenizer

_HIDDEN = 32
_CHANNELS = (16, 16, 32, 32)
_WORDS = "a an the of cat dog red blue photo house tree car man woman sky sun moon city sea bird"
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make_text_encoder(tokenizer: CLIPTokenizer, kind: type[CLIPTextModel], activation: str) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=_HIDDEN,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _randomized(kind(config))


def make_t5_tokenizer() -> T5TokenizerFast:
    """Return a tokenizer in which `_WORDS` and all ASCII letters are tokens, without a SentencePiece file."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in _WORDS.split() if len(word) > 1]
    pieces += [(chr(code), -6.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "tokenizer.json")
        tokenizer.save(path)
        return T5TokenizerFast(tokenizer_file=path, extra_ids=0, model_max_length=512)


def make_t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=_HIDDEN,
        d_kv=8,
        d_ff=2 * _HIDDEN,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return _randomized(T5EncoderModel(config))


def make_vae(**changes: Any) -> AutoencoderKL:
    options: dict[str, Any] = {
        "sample_size": 64,
        "block_out_channels": _CHANNELS,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 8,
    }
    return AutoencoderKL(**options | changes)


def make_unet(**changes: Any) -> UNet2DConditionModel:
    options: dict[str, Any] = {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": _CHANNELS,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "cross_attention_dim": _HIDDEN,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**options | changes)


def make_sdxl() -> StableDiffusionXLPipeline:
    tokenizer = make_tokenizer()
    sizes = 16
    unet = make_unet(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        cross_attention_dim=2 * _HIDDEN,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes,
        projection_class_embeddings_input_dim=_HIDDEN + 6 * sizes,
    )
    return StableDiffusionXLPipeline(
        vae=make_vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=make_text_encoder(tokenizer, CLIPTextModel, "quick_gelu"),
        text_encoder_2=make_text_encoder(tokenizer, CLIPTextModelWithProjection, "gelu"),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            **_BETAS, steps_offset=1, timestep_spacing="leading", interpolation_type="linear", use_karras_sigmas=False
        ),
        add_watermarker=False,
    )


def make_flux() -> FluxPipeline:
    tokenizer, t5_tokenizer = make_tokenizer(), make_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=_HIDDEN,
        pooled_projection_dim=_HIDDEN,
        guidance_embeds=False,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, base_shift=0.5, max_shift=1.15),
        vae=make_vae(
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=make_text_encoder(tokenizer, CLIPTextModel, "quick_gelu"),
        tokenizer=tokenizer,
        text_encoder_2=make_t5_encoder(t5_tokenizer),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def make_lcm() -> LatentConsistencyModelPipeline:
    tokenizer = make_tokenizer()
    return LatentConsistencyModelPipeline(
        vae=make_vae(),
        text_encoder=make_text_encoder(tokenizer, CLIPTextModel, "quick_gelu"),
        tokenizer=tokenizer,
        unet=make_unet(time_cond_proj_dim=16),
        scheduler=LCMScheduler(**_BETAS, original_inference_steps=50, steps_offset=1, set_alpha_to_one=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_sd_turbo() -> StableDiffusionPipeline:
    tokenizer = make_tokenizer()
    return StableDiffusionPipeline(
        vae=make_vae(),
        text_encoder=make_text_encoder(tokenizer, CLIPTextModel, "gelu"),
        tokenizer=tokenizer,
        unet=make_unet(attention_head_dim=(2, 2, 4, 4), use_linear_projection=True),
        scheduler=EulerDiscreteScheduler(**_BETAS, steps_offset=1, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _randomized(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with larger random weights: with the default ones, prompts would hardly differ in effect."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.5)
    return model


MAKERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sdxl": make_sdxl,
    "flux": make_flux,
    "lcm": make_lcm,
    "sd-turbo": make_sd_turbo,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    MAKERS[sys.argv[1]]().save_pretrained(sys.argv[2])
