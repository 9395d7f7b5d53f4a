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

_CHECKED_TOKENS, _EQUAL_TOKENS = 6, 3


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
    prompt = _prompt(original)
    expected = _greedy(original, torch.from_numpy(features), prompt)
    converted = ctranslate2.models.Whisper(str(target), device="cpu", compute_type="float32")
    found = converted.generate(
        ctranslate2.StorageView.from_array(features),
        [prompt],
        beam_size=1,
        max_length=len(prompt) + _CHECKED_TOKENS,
        suppress_blank=False,
        suppress_tokens=[],
    )
    ids = found[0].sequences_ids[0][:_CHECKED_TOKENS]
    # Later tokens of noise can be almost equally likely, so that rounding decides between them.
    if ids[:_EQUAL_TOKENS] != expected[:_EQUAL_TOKENS]:
        raise ValueError(f"the converted model decodes {ids}, and the original {expected}")
    print("  self-check: the first tokens are those of the original")


def _prompt(model: WhisperForConditionalGeneration) -> list[int]:
    """Return the tokens that ask for a transcription without timestamps, in English if the model knows languages."""
    generation = model.generation_config
    prompt = [model.config.decoder_start_token_id]
    if getattr(generation, "is_multilingual", False):
        prompt += [generation.lang_to_id["<|en|>"], generation.task_to_id["transcribe"]]
    return [*prompt, generation.no_timestamps_token_id]


def _greedy(model: WhisperForConditionalGeneration, features: torch.Tensor, prompt: list[int]) -> list[int]:
    """Return the tokens that the original decodes greedily after a prompt."""
    ids = list(prompt)
    with torch.no_grad():
        states = model.get_encoder()(features)
        for _ in range(_CHECKED_TOKENS):
            output = model(encoder_outputs=states, decoder_input_ids=torch.tensor([ids]))
            ids.append(int(output.logits[0, -1].argmax()))
            if ids[-1] == model.config.eos_token_id:
                return ids[len(prompt) : -1]
    return ids[len(prompt) :]


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
