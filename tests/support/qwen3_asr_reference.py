"""Prints what torch answers, as JSON. It runs in .venv-asr.

`python -m tests.support.qwen3_asr_reference FOLDER AUDIO.npy COUNT [LANGUAGE]`:
FOLDER is a published folder of Qwen3-ASR, AUDIO.npy has samples at 16 kHz. COUNT is the maximum number of tokens. The
output is the text, as JSON.
"""

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor

from export.isolated.qwen3_asr_package import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor


def generate(folder: Path, samples: np.ndarray, count: int, language: str = "", context: str = "") -> str:
    """Return the most probable text, in float32."""
    model = Qwen3ASRForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    _restrict_to_windows(model.thinker.audio_tower)
    template = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    processor = Qwen3ASRProcessor(
        WhisperFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), template
    )
    messages = [{"role": "system", "content": context}, {"role": "user", "content": [{"type": "audio", "audio": ""}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if language:
        prompt += f"language {language}<asr_text>"
    inputs = processor(text=[prompt], audio=[samples], return_tensors="pt")
    result = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    tokens = result.sequences[0, inputs["input_ids"].shape[1] :]
    text: str = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return text


def _restrict_to_windows(encoder: Any) -> None:
    """Make each layer attend within windows of 8 seconds, which the package does with Flash Attention only."""
    for layer in encoder.layers:
        layer.forward = _windowed(layer.forward)


def _windowed(forward: Any) -> Any:
    def run(hidden: torch.Tensor, limits: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.cat([forward(part, torch.tensor([0, len(part)]))[0] for part in _parts(hidden, limits)]),)

    return run


def _parts(hidden: torch.Tensor, limits: torch.Tensor) -> Iterator[torch.Tensor]:
    for start, end in pairwise(limits):
        yield hidden[start:end]


if __name__ == "__main__":
    print(json.dumps(generate(Path(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
