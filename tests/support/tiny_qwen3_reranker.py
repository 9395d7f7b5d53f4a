"""Run in .venv-onnx as `python -m tests.support.tiny_qwen3_reranker TOKENIZER_JSON TARGET PROMPTS_JSON`.

Writes a Qwen3 language model with two layers and random weights to TARGET, and scores the prompts in PROMPTS_JSON as
the model card of Qwen3-Reranker prescribes: the logit of "yes" minus the logit of "no" after the prompt. Prints the
scores as JSON.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # with the default initialization, all scores would be almost equal
            if weight.dim() == 2:
                weight.normal_(0, 0.3)
    return model


def main() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1])
    model = make_model(tokenizer)
    tokenizer.save_pretrained(sys.argv[2])
    model.save_pretrained(sys.argv[2])
    prompts = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    scores = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
        scores.append(float(logits[yes] - logits[no]))
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
