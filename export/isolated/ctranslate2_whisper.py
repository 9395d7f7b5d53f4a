"""Converts Whisper for CTranslate2: `python -m export.isolated.ctranslate2_whisper SOURCE TARGET`, in .venv-onnx.

SOURCE is a folder in transformers' format. TARGET receives the files that faster-whisper loads, with float16 weights.
The converted model and the original then decode the same random features, and their first tokens are compared.
"""

import sys
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from transformers import WhisperForConditionalGeneration

_CHECKED_TOKENS = 6


def convert(source: Path, target: Path) -> None:
    """Write the model. Raises ValueError if it does not decode what the original does."""
    copied = [name for name in ("tokenizer.json", "preprocessor_config.json") if (source / name).exists()]
    TransformersConverter(str(source), copy_files=copied).convert(str(target), quantization="float16", force=True)
    _check(source, target)


def _check(source: Path, target: Path) -> None:
    original = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    config = original.config
    random = np.random.default_rng(1)
    features = random.normal(0, 0.5, (1, config.num_mel_bins, 2 * config.max_source_positions)).astype(np.float32)
    start = config.decoder_start_token_id
    expected = _greedy(original, torch.from_numpy(features), start)
    converted = ctranslate2.models.Whisper(str(target), device="cpu", compute_type="float32")
    found = converted.generate(
        ctranslate2.StorageView.from_array(features),
        [[start]],
        beam_size=1,
        max_length=_CHECKED_TOKENS + 1,
        suppress_blank=False,
        suppress_tokens=[],
    )
    ids = [start, *found[0].sequences_ids[0]][: len(expected)]
    if ids != expected[: len(ids)] or len(ids) < 2:
        raise ValueError(f"the converted model decodes {ids}, and the original {expected}")
    print(f"  self-check: the first {len(ids) - 1} tokens are those of the original")


def _greedy(model: WhisperForConditionalGeneration, features: torch.Tensor, start: int) -> list[int]:
    """Return the tokens that the original decodes greedily, without the rules of transcription."""
    ids = [start]
    with torch.no_grad():
        states = model.get_encoder()(features)
        for _ in range(_CHECKED_TOKENS):
            output = model(encoder_outputs=states, decoder_input_ids=torch.tensor([ids]))
            ids.append(int(output.logits[0, -1].argmax()))
            if ids[-1] == model.config.eos_token_id:
                return ids[:-1]
    return ids


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
