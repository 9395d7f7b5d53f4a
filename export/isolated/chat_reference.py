"""Computes what a chat model says with transformers, for comparison with the exported model.

`python -m export.isolated.chat_reference SOURCE TARGET TEXT [trust]`, in .venv-openvino or .venv-gguf. TARGET receives,
as JSON, the `tokens` of the file TEXT, and the `losses`: the negative log-likelihood of each token after the first.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from export.isolated.chat_model import load_tokenizer

MAX_TOKENS = 512

# Weights in float32 take twice the memory of published ones.
_MAX_FLOAT32_BYTES = 512 << 20


def compute_losses(source: Path, text: str, *, trust_remote_code: bool) -> dict[str, list[float]]:
    """Return the tokens of a text and their losses. Small models compute in float32, others as they are stored."""
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    dtype = torch.float32 if size < _MAX_FLOAT32_BYTES else "auto"
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    model = kind.from_pretrained(source, dtype=dtype, trust_remote_code=trust_remote_code).eval()
    tokens = tokenizer(text).input_ids[:MAX_TOKENS]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
    # Row by row, because the logits of all tokens take hundreds of megabytes.
    rows = zip(logits[:-1], tokens[1:], strict=True)
    return {"tokens": tokens, "losses": [float(row.float().logsumexp(0) - row[token].float()) for row, token in rows]}


if __name__ == "__main__":
    found = compute_losses(
        Path(sys.argv[1]), Path(sys.argv[3]).read_text(encoding="utf-8"), trust_remote_code="trust" in sys.argv[4:]
    )
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
