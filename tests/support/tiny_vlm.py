"""Writes small models for text and images, with random weights, in the layout of the published models.

Run it in .venv-gguf: `python -m tests.support.tiny_vlm TOKENIZER_FOLDER TARGET KIND`. KIND is a key of KINDS,
TOKENIZER_FOLDER contains the tokenizer of SmolLM2, and TARGET is the folder to write. A model's output is meaningless,
but depends on every weight and on the image.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from transformers import (
    Glm46VImageProcessor,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
    HunYuanVLConfig,
    HunYuanVLForConditionalGeneration,
    HunYuanVLImageProcessor,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    LlamaTokenizer,
    PaddleOCRVLConfig,
    PaddleOCRVLForConditionalGeneration,
    PaddleOCRVLImageProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
_VISION = {"hidden_size": 64, "intermediate_size": 128, "spatial_merge_size": 2}
# llama.cpp's converter knows the projector's `linear_2` only for encoders with at least three layers.
_LAYERS = {"num_hidden_layers": 3, "num_attention_heads": 4}
_DEPTH = {"depth": 2, "num_heads": 4}
_PIXELS = {"min_pixels": 56 * 56, "max_pixels": 448 * 448}
_SIZE = {"size": {"shortest_edge": 56 * 56, "longest_edge": 448 * 448}}
_QUERY_OR_KEY = re.compile(r"(q|k)_(layer)?norm\.weight$")

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER{% elif message['role'] == 'assistant' %}MODEL"
    "{% endif %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if message['role'] == 'user' %}LAST{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}MODEL{% endif %}"
)


def write_paddleocr_vl(tokenizer_folder: Path, target: Path) -> None:
    """Write a model like PaddleOCR-VL. Its tokenizer is one of sentencepiece, as llama.cpp's converter requires."""
    image = ("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>")
    template = "<s>" + _filled(_PLAIN, IMAGE="".join(image), USER="User: ", LAST="\n", MODEL="Assistant:\n")
    tokenizer = _sentencepiece(target, [*image, "<|video_pad|>"])
    tokenizer.chat_template = template
    start, pad, end, video = tokenizer.convert_tokens_to_ids([*image, "<|video_pad|>"])
    rope = {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [2, 3, 3]}
    config = PaddleOCRVLConfig(
        text_config=_TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=_VISION | _LAYERS | {"image_size": 224, "patch_size": 14},
        image_token_id=pad,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    _save(
        PaddleOCRVLForConditionalGeneration(config),
        tokenizer,
        PaddleOCRVLImageProcessor(**_PIXELS),
        "PaddleOCRVLProcessor",
        target,
    )
    _change(
        target / "config.json", lambda values: values["vision_config"].update(architectures=["PaddleOCRVisionModel"])
    )
    _change(target / "preprocessor_config.json", lambda values: values.update(_PIXELS))
    tokens = {str(index): _added(token) for token, index in tokenizer.get_added_vocab().items()}
    named = {"added_tokens_decoder": tokens, "extra_special_tokens": {"image_token": image[1]}}
    _change(target / "tokenizer_config.json", lambda values: values.update(named))


def write_glm_ocr(tokenizer_folder: Path, target: Path) -> None:
    """Write a model like GLM-OCR, which has the weights of a further layer, for the prediction of more tokens."""
    image = ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>")
    video = ("<|begin_of_video|>", "<|video|>", "<|end_of_video|>")
    others = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
    parts = {"IMAGE": "".join(image), "USER": "<|user|>\n", "LAST": "", "MODEL": "<|assistant|>\n"}
    tokenizer = _tokenizer(tokenizer_folder, [*image, *video, *others], "[gMASK]<sop>" + _filled(_PLAIN, **parts))
    tokenizer.eos_token = "<|endoftext|>"
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0}
    names = ("image_start_token_id", "image_token_id", "image_end_token_id")
    names += ("video_start_token_id", "video_token_id", "video_end_token_id")
    ids = tokenizer.convert_tokens_to_ids([*image, *video])
    config = GlmOcrConfig(
        text_config=_TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "num_nextn_predict_layers": 1},
        vision_config=_VISION | _DEPTH | {"out_hidden_size": 64, "image_size": 224, "patch_size": 14},
        **dict(zip(names, ids, strict=True)),
    )
    _save(GlmOcrForConditionalGeneration(config), tokenizer, Glm46VImageProcessor(**_SIZE), "Glm46VProcessor", target)
    layer = "model.language_model.layers.2."
    norms = [f"{layer}{name}.weight" for name in ("enorm", "hnorm", "shared_head.norm")]
    _add_prediction_layer(target, 2, layer, norms, f"{layer}eh_proj.weight")


def write_hunyuan_vl(tokenizer_folder: Path, target: Path) -> None:
    """Write a model like HunyuanOCR."""
    begin, user, model = "<｜hy_begin▁of▁sentence｜>", "<｜hy_User｜>", "<｜hy_Assistant｜>"
    image = [f"<｜hy_place▁holder▁no▁{number}｜>" for number in (100, 102, 101, 103)]
    parts = {"IMAGE": "".join(image[:3]), "USER": "", "LAST": user, "MODEL": ""}
    tokenizer = _tokenizer(tokenizer_folder, [begin, user, model, *image], begin + _filled(_PLAIN, **parts))
    tokenizer.bos_token, tokenizer.eos_token = begin, model
    names = ("im_start_id", "image_token_id", "im_end_id", "im_newline_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(image), strict=True))
    rope = {"rope_type": "xdrope", "rope_theta": 10000.0, "alpha": 1000.0, "xdrope_section": [2, 2, 2, 2]}
    rope |= {"beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    special = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 0}
    config = HunYuanVLConfig(
        text_config=_TEXT | special | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=_VISION | _LAYERS | {"out_hidden_size": 64, "patch_size": 16, "max_image_size": 256},
        **ids,
    )
    _save(
        HunYuanVLForConditionalGeneration(config),
        tokenizer,
        HunYuanVLImageProcessor(**_PIXELS),
        "HunYuanVLProcessor",
        target,
    )
    named = {"image_start_token": image[0], "image_token": image[1], "image_end_token": image[2]}
    _change(target / "tokenizer_config.json", lambda values: values.update(extra_special_tokens=named))
    _change(target / "preprocessor_config.json", lambda values: values.update(_PIXELS))


def write_lfm2_vl(tokenizer_folder: Path, target: Path) -> None:
    """Write a model like LFM2-VL."""
    tiles = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 11) for column in range(1, 11)]
    image = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
    tokenizer = _tokenizer(tokenizer_folder, [*image, *tiles], _filled(_CHATML, IMAGE="<image>"))
    text = {name: value for name, value in _TEXT.items() if name != "head_dim"}
    text |= {"vocab_size": len(tokenizer), "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
    text |= {"architectures": ["Lfm2ForCausalLM"], "eos_token_id": tokenizer.eos_token_id}
    vision = {name: value for name, value in _VISION.items() if name != "spatial_merge_size"}
    config = Lfm2VlConfig(
        text_config=text | {"model_type": "lfm2"},
        vision_config=vision
        | _LAYERS
        | {"model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 256, "vision_use_head": False},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=128,
    )
    _save(Lfm2VlForConditionalGeneration(config), tokenizer, Lfm2VlImageProcessor(), "Lfm2VlProcessor", target)
    # transformers itself restores this part of the published names only for models that it has loaded.
    file, tower = target / "model.safetensors", "model.vision_tower."
    weights = {name.replace(tower, f"{tower}vision_model."): value for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def write_qwen3_5(tokenizer_folder: Path, target: Path) -> None:
    """Write a model like Qwen3.5."""
    tokenizer, ids = _qwen_tokenizer(tokenizer_folder)
    rope = {"rope_type": "default", "rope_theta": 1e7, "mrope_section": [3, 3, 2], "mrope_interleaved": True}
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    linear |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "mtp_num_hidden_layers": 1}
    text = _TEXT | linear | {"vocab_size": len(tokenizer), "head_dim": 64, "num_hidden_layers": 4}
    config = Qwen3_5Config(
        text_config=text | {"rope_parameters": rope | {"partial_rotary_factor": 0.25}},
        vision_config=_VISION | _DEPTH | {"out_hidden_size": 64, "patch_size": 16, "num_position_embeddings": 196},
        **ids,
    )
    _save(
        Qwen3_5ForConditionalGeneration(config),
        tokenizer,
        Qwen2VLImageProcessor(patch_size=16, **_SIZE),
        "Qwen3VLProcessor",
        target,
    )
    norms = [f"mtp.{name}.weight" for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")]
    _add_prediction_layer(target, 4, "mtp.layers.0.", norms, "mtp.fc.weight")
    # Otherwise, transformers would replace the tokenizer's regular expression by that of Qwen3.5.
    auto_map = {"AutoTokenizer": [None, "unused.Unused"]}
    _change(target / "tokenizer_config.json", lambda values: values.update(auto_map=auto_map))


def write_qwen3_vl(tokenizer_folder: Path, target: Path) -> None:
    """Write a model like Qwen3-VL."""
    tokenizer, ids = _qwen_tokenizer(tokenizer_folder)
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [3, 3, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=_TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=_VISION
        | _DEPTH
        | {"out_hidden_size": 64, "patch_size": 16, "num_position_embeddings": 196, "deepstack_visual_indexes": [0]},
        **ids,
    )
    _save(
        Qwen3VLForConditionalGeneration(config),
        tokenizer,
        Qwen2VLImageProcessor(patch_size=16, **_SIZE),
        "Qwen3VLProcessor",
        target,
    )


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "paddleocr_vl": write_paddleocr_vl,
    "glm_ocr": write_glm_ocr,
    "hunyuan_vl": write_hunyuan_vl,
    "lfm2_vl": write_lfm2_vl,
    "qwen3_5": write_qwen3_5,
    "qwen3_vl": write_qwen3_vl,
}


def _tokenizer(folder: Path, tokens: list[str], template: str) -> PreTrainedTokenizerFast:
    """Return SmolLM2's tokenizer with further special tokens."""
    file = str(folder / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.chat_template = template
    return tokenizer


def _qwen_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    image = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
    tokenizer = _tokenizer(folder, [*image], _filled(_CHATML, IMAGE="".join(image[:3])))
    names = ("vision_start_token_id", "image_token_id", "vision_end_token_id", "video_token_id")
    return tokenizer, dict(zip(names, tokenizer.convert_tokens_to_ids(list(image)), strict=True))


def _sentencepiece(target: Path, tokens: list[str]) -> LlamaTokenizer:
    """Write a small tokenizer of sentencepiece to the folder, and return it with further special tokens."""
    target.mkdir(parents=True, exist_ok=True)
    sentences = iter([__doc__, _PLAIN, "User: Read the text in the picture.\nAssistant:\n"])
    with (target / "tokenizer.model").open("wb") as writer:
        SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=writer,
            model_type="bpe",
            vocab_size=400,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
    tokenizer = LlamaTokenizer.from_pretrained(target)
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return tokenizer


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(name, text)
    return template


def _save(model: torch.nn.Module, tokenizer: Any, image_processor: Any, processor: str, target: Path) -> None:
    """Write a model with random weights, and its tokenizer and image processor."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 1.0 if "embed" in name else 0.3)
            elif name.endswith(".A_log"):
                weight.normal_(-3, 0.3)  # otherwise, the text after a picture would make the model forget it
            else:
                # With the default factors of queries and keys, attention would be the same for all tokens.
                weight.add_(torch.randn_like(weight) * 0.1 + (2 if _QUERY_OR_KEY.search(name) else 0))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.bfloat16().save_pretrained(target)
    tokenizer.save_pretrained(target)
    image_processor.save_pretrained(target)
    _change(target / "preprocessor_config.json", lambda values: values.update(processor_class=processor))


def _add_prediction_layer(target: Path, layers: int, layer: str, norms: list[str], projection: str) -> None:
    """Add a layer that predicts further tokens, which transformers ignores, with the weights of the last layer."""
    file = target / "model.safetensors"
    weights, last = load_file(file), f"model.language_model.layers.{layers - 1}."
    added = {layer + name[len(last) :]: value.clone() for name, value in weights.items() if name.startswith(last)}
    added |= {name: torch.ones(64).bfloat16() for name in norms}
    added[projection] = torch.randn(64, 128).bfloat16()
    save_file(weights | added, file, metadata={"format": "pt"})


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")


def _added(token: str) -> dict[str, Any]:
    return {"content": token, "special": True, "lstrip": False, "rstrip": False, "normalized": False}


if __name__ == "__main__":
    KINDS[sys.argv[3]](Path(sys.argv[1]), Path(sys.argv[2]))
