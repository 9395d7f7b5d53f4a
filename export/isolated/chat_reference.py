"""Computes what a chat model says with transformers, for comparison with the exported model.

`python -m export.isolated.chat_reference SOURCE TARGET TEXT [trust]`, in .venv-openvino or .venv-gguf. TARGET receives,
as JSON, the `tokens` of the file TEXT, and the `losses`: the negative log-likelihood of each token after the first.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from export.isolated.chat_model import load_tokenizer

MAX_TOKENS = 512


def compute_losses(source: Path, text: str, *, trust_remote_code: bool) -> dict[str, list[float]]:
    """Return the tokens of a text and their losses. The weights are computed with as they are stored."""
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", trust_remote_code=trust_remote_code).eval()
    if model.num_parameters() < 1e9:
        model = model.float()
    tokens = tokenizer(text).input_ids[:MAX_TOKENS]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none")
    return {"tokens": tokens, "losses": losses.tolist()}


if __name__ == "__main__":
    found = compute_losses(
        Path(sys.argv[1]), Path(sys.argv[3]).read_text(encoding="utf-8"), trust_remote_code="trust" in sys.argv[4:]
    )
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
