"""Converts Whisper to OpenVINO: `python -m export.isolated.openvino_whisper SOURCE TARGET`, in .venv-openvino.

SOURCE is a CTranslate2 folder with model.bin, config.json and tokenizer.json. TARGET receives the files that OpenVINO
GenAI loads.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.openvino.convert import export_tokenizer
from optimum.intel import OVModelForSpeechSeq2Seq, OVWeightQuantizationConfig
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from export.isolated.ctranslate2_arrays import Arrays, read_arrays

# A layer's module in transformers → its name in CTranslate2, and the projections (query, key, value) that CTranslate2
# stores there as one fused matrix.
_SELF = {
    "self_attn_layer_norm": ("self_attention/layer_norm", ""),
    "self_attn": ("self_attention/linear_0", "qkv"),
    "self_attn.out_proj": ("self_attention/linear_1", ""),
    "final_layer_norm": ("ffn/layer_norm", ""),
    "fc1": ("ffn/linear_0", ""),
    "fc2": ("ffn/linear_1", ""),
}
_CROSS = {
    "encoder_attn_layer_norm": ("attention/layer_norm", ""),
    "encoder_attn.q_proj": ("attention/linear_0", ""),
    "encoder_attn": ("attention/linear_1", "kv"),
    "encoder_attn.out_proj": ("attention/linear_2", ""),
}


def export_whisper(source: Path, target: Path) -> None:
    """Write encoder and decoder in int8, tokenizer and detokenizer, and their configurations."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _write_transformers(source, Path(folder))
        int8 = OVWeightQuantizationConfig(bits=8)
        model = OVModelForSpeechSeq2Seq.from_pretrained(
            folder, export=True, compile=False, stateful=True, quantization_config=int8
        )
        model.save_pretrained(target)
        WhisperFeatureExtractor.from_pretrained(folder).save_pretrained(target)
        export_tokenizer(tokenizer, target)


def _write_transformers(source: Path, folder: Path) -> WhisperTokenizerFast:
    """Write the model to `folder` in transformers' format and return its tokenizer."""
    arrays = read_arrays(source / "model.bin", "WhisperSpec")
    published = json.loads((source / "config.json").read_text(encoding="utf-8"))
    added = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"])
    special["decoder_start_token_id"] = ids["<|startoftranscript|>"]
    config = _model_config(arrays, special)
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict(dict(_weights(arrays)))
    limits = {"max_length": config.max_target_positions}
    model.generation_config = _generation_config(published, ids, special | limits)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    end = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), **end)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _weights(arrays: Arrays) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights, each with its name in transformers."""
    for name in ("model.decoder.embed_tokens", "proj_out"):
        yield f"{name}.weight", _tensor(arrays, "decoder/embeddings/weight")
    for name in ("conv1", "conv2"):
        yield from _part(arrays, f"encoder/{name}", f"model.encoder.{name}")
    for side, parts in (("encoder", _SELF), ("decoder", _SELF | _CROSS)):
        yield f"model.{side}.embed_positions.weight", _tensor(arrays, f"{side}/position_encodings/encodings")
        yield from _part(arrays, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for layer in range(_layers(arrays, side)):
            theirs, ours = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            for target, (part, fused) in parts.items():
                yield from _part(arrays, f"{theirs}/{part}", f"{ours}.{target}", fused)


def _part(arrays: Arrays, source: str, target: str, fused: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a module's weight and bias. Fused projections are split, without a key bias, which transformers lacks."""
    for theirs, ours in (("weight", "weight"), ("bias", "bias"), ("gamma", "weight"), ("beta", "bias")):
        if f"{source}/{theirs}" not in arrays:
            continue
        tensor = _tensor(arrays, f"{source}/{theirs}")
        if not fused:
            yield f"{target}.{ours}", tensor
        for letter, piece in zip(fused, tensor.chunk(len(fused) or 1), strict=False):
            if letter + ours != "kbias":
                yield f"{target}.{letter}_proj.{ours}", piece.clone()


def _tensor(arrays: Arrays, name: str) -> torch.Tensor:
    return torch.from_numpy(arrays[name].astype(np.float32))


def _layers(arrays: Arrays, side: str) -> int:
    return sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight") for name in arrays)


def _model_config(arrays: Arrays, special: dict[str, int]) -> WhisperConfig:
    sides: dict[str, int] = {}
    for side, positions in (("encoder", "max_source_positions"), ("decoder", "max_target_positions")):
        sides[positions] = len(arrays[f"{side}/position_encodings/encodings"])
        sides[f"{side}_layers"] = _layers(arrays, side)
        sides[f"{side}_attention_heads"] = int(arrays[f"{side}/num_heads"])
        sides[f"{side}_ffn_dim"] = len(arrays[f"{side}/layer_0/ffn/linear_0/weight"])
    vocabulary, width = arrays["decoder/embeddings/weight"].shape
    mels = arrays["encoder/conv1/weight"].shape[1]
    return WhisperConfig(vocab_size=vocabulary, d_model=width, num_mel_bins=mels, **sides, **special)


def _generation_config(published: dict[str, Any], ids: dict[str, int], special: dict[str, int]) -> GenerationConfig:
    languages = {name: token_id for name, token_id in ids.items() if token_id in published.get("lang_ids", ())}
    tasks = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    known = {"lang_to_id": languages, "task_to_id": tasks} if languages else {}
    return GenerationConfig(
        is_multilingual=bool(languages),
        max_initial_timestamp_index=50,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        suppress_tokens=published["suppress_ids"],
        begin_suppress_tokens=published["suppress_ids_begin"],
        alignment_heads=published["alignment_heads"],
        **known,
        **special,
    )


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    export_whisper(Path(sys.argv[1]), Path(sys.argv[2]))
