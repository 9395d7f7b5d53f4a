"""Rewrites Qwen3-ASR from the layout of transformers 5 ("-hf" repositories) to that of the package qwen-asr.

`python -m export.isolated.qwen3_asr_layout SOURCE TARGET`, in .venv-gguf. The weights are the same under other names.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from transformers import WhisperFeatureExtractor

# Prefix in transformers 5 → prefix in the package. The first that fits applies.
_PREFIXES = {
    "model.multi_modal_projector.linear_1.": "thinker.audio_tower.proj1.",
    "model.multi_modal_projector.linear_2.": "thinker.audio_tower.proj2.",
    "model.audio_tower.": "thinker.audio_tower.",
    "model.language_model.": "thinker.model.",
    "lm_head.": "thinker.lm_head.",
}
_EMBEDDINGS, _HEAD = "thinker.model.embed_tokens.weight", "thinker.lm_head.weight"


def has_package_layout(config: dict[str, Any]) -> bool:
    """Return whether a config.json is in the layout of the package."""
    return "thinker_config" in config


def write_package_layout(source: Path, target: Path) -> None:
    """Write config.json, preprocessor_config.json and the weights. The tokenizer's files are not copied."""
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(_package_config(config)), encoding="utf-8")
    WhisperFeatureExtractor(
        feature_size=config["audio_config"]["num_mel_bins"], return_attention_mask=True
    ).save_pretrained(target)
    names: set[str] = set()
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            weights = {_package_name(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _EMBEDDINGS in weights and config.get("tie_word_embeddings"):
            weights.setdefault(_HEAD, weights[_EMBEDDINGS].clone())
        save_file(weights, target / path.name, metadata={"format": "pt"})
        names |= weights.keys()
    index = source / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text(encoding="utf-8"))
        files = {_package_name(name): file for name, file in content["weight_map"].items()}
        content["weight_map"] = {name: files.get(name, files[_EMBEDDINGS]) for name in names}
        (target / index.name).write_text(json.dumps(content), encoding="utf-8")


def _package_name(name: str) -> str:
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _package_config(config: dict[str, Any]) -> dict[str, Any]:
    text = dict(config["text_config"])
    rope = text.pop("rope_parameters")
    # The sections of the rotary dimensions only matter for positions in images and videos, which audio does not have.
    half = text["head_dim"] // 2
    sections = [half - 2 * (5 * half // 16), 5 * half // 16, 5 * half // 16]
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": sections, "mrope_interleaved": True}
    text["tie_word_embeddings"] = config.get("tie_word_embeddings", False)
    audio = {"max_source_positions": 1500} | config["audio_config"]
    for part in (audio, text):
        part.pop("model_type", None)
    return {
        "architectures": config["architectures"],
        "model_type": "qwen3_asr",
        "dtype": config.get("dtype", "bfloat16"),
        "thinker_config": {
            "audio_config": audio,
            "text_config": text,
            "audio_token_id": config["audio_token_id"],
        },
    }


def main(source: Path, target: Path) -> None:
    """Write the folder in the layout of the package, with the tokenizer's files."""
    write_package_layout(source, target)
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja", ".txt") and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
