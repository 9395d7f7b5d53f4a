"""What transformers answers to a picture: `python -m tests.support.vlm_reference FOLDER PICTURE OUTPUT`, in .venv-gguf.

PICTURE is an image file of a size that needs no scaling. OUTPUT receives, as JSON, the number of `prompt_tokens`, the
`steps` of greedy decoding (the log probabilities of the five likeliest tokens, the best first), and the `text`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    DeepseekOcr2ImageProcessor,
    UnlimitedOcrForConditionalGeneration,
    UnlimitedOcrImageProcessor,
)
from transformers.models.hunyuan_vl import modeling_hunyuan_vl

QUESTION = "Read the text."
_STEPS = 8


def answer(folder: Path, picture: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    image = Image.open(picture).convert("RGB")
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    read = _deepseek_inputs if architecture.startswith("Deepseek") else _inputs
    tokenizer, model, inputs = read(folder, image)
    ids, steps, tokens = inputs.pop("input_ids"), [], []
    with torch.no_grad():
        for _ in range(_STEPS):
            logits = model(input_ids=torch.tensor([[*ids, *tokens]]), **_extended(inputs, len(tokens))).logits[0, -1]
            steps.append(logits.float().log_softmax(0).topk(5).values.tolist())
            tokens.append(int(logits.argmax()))
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return {"prompt_tokens": len(ids), "steps": steps, "tokens": tokens, "text": text}


def _extended(inputs: dict[str, Any], count: int) -> dict[str, Any]:
    """Return inputs for `count` more tokens: those of text, where there is an input per token."""
    found = dict(inputs)
    if "mm_token_type_ids" in found:
        found["mm_token_type_ids"] = torch.nn.functional.pad(found["mm_token_type_ids"], (0, count))
    return found


def _inputs(folder: Path, image: Image.Image) -> tuple[Any, Any, dict[str, Any]]:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = dict(processor(images=[image], text=[rendered], return_tensors="pt", add_special_tokens=False))
    inputs.pop("attention_mask")
    inputs["input_ids"] = inputs["input_ids"][0].tolist()
    return processor.tokenizer, model, inputs


def _deepseek_inputs(folder: Path, image: Image.Image) -> tuple[Any, Any, dict[str, Any]]:
    """Return inputs without a processor, which transformers has only for models that it has written itself."""
    from tests.support.tiny_deepseek_ocr import deepseek_ocr2_config, deepseek_ocr_config

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if "OCR2" in json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]:
        config, kind = deepseek_ocr2_config(tokenizer), AutoModelForImageTextToText
        processor: Any = DeepseekOcr2ImageProcessor()
    else:
        config, kind = deepseek_ocr_config(tokenizer), UnlimitedOcrForConditionalGeneration
        processor = UnlimitedOcrImageProcessor(max_patches=9)
    model = kind.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    inputs = dict(processor(image, return_tensors="pt"))
    with torch.no_grad():
        count = sum(len(each) for each in model.get_image_features(**inputs).pooler_output)
    pad = tokenizer.convert_tokens_to_ids("<image>")
    text = tokenizer.encode("\n" + QUESTION, add_special_tokens=False)
    return tokenizer, model, inputs | {"input_ids": [tokenizer.bos_token_id, *[pad] * count, *text]}


def _repeated_sections(self: Any, freq: Any) -> Any:
    """Return the rotary frequencies as the publisher's code has them: transformers 5.24 doubles the sections."""
    doubled, sections = torch.cat((freq, freq), dim=-1), list(self.mrope_section)
    parts = doubled.split(sections * 2, dim=-1)
    return torch.cat([part[index % len(sections)] for index, part in enumerate(parts)], dim=-1)


if __name__ == "__main__":
    modeling_hunyuan_vl.HunYuanVLRotaryEmbedding.recomposition_frequencies = _repeated_sections
    np.random.seed(0)
    found = answer(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(found), encoding="utf-8")
