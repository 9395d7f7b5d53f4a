"""Exports safetensors to ONNX: `python -m export.isolated.onnx_encoder SOURCE TARGET OPTIONS`, in .venv-onnx.

OPTIONS is a JSON object; see export.converters.encoder.convert_with_optimum.
"""

import inspect
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx import main_export
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from export.isolated import onnx_int8

# Larger networks cannot be read as one protocol buffer, which quantization needs.
_MAX_QUANTIZED_BYTES = 1_800_000_000


def export_encoder(source: Path, target: Path, options: dict[str, str]) -> None:
    """Write model.onnx, tokenizer.json and, with option `score_tokens`, score.npy.

    The output of the network is the last hidden state or, for a classifier, its logits.
    """
    classifier = options.get("task") == "rerank" and "score_tokens" not in options
    task = "text-classification" if classifier else "feature-extraction"
    main_export(str(source), str(target), task=task, library_name="transformers", do_validation=False)
    if options.get("quantize") == "int8":
        exported = target / "exported.onnx"
        (target / "model.onnx").rename(exported)
        onnx_int8.quantize(exported, target / "model.onnx", target / "tokenizer.json")
    if tokens := options.get("score_tokens"):
        np.save(target / "score.npy", _difference(source, *tokens.split()))


def can_quantize(source: Path) -> bool:
    """Return whether a model is small enough to be quantized."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    return size * (1 if dtype == "float32" else 2) < _MAX_QUANTIZED_BYTES


def compute_reference(source: Path, texts: list[Any], options: dict[str, str]) -> list[list[float]]:
    """Return the original's vectors or scores of texts or pairs, without normalization."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    is_rerank = options["task"] == "rerank"
    kind = AutoModelForSequenceClassification if is_rerank else AutoModel
    model = kind.from_pretrained(source, dtype=torch.float32).eval()
    accepted = inspect.signature(model.forward).parameters
    rows = []
    for text in texts:
        encoded = tokenizer(*(text if isinstance(text, list) else [text]), return_tensors="pt")
        encoded = {name: value for name, value in encoded.items() if name in accepted}
        with torch.no_grad():
            output = model(**encoded)
        if is_rerank:
            rows.append(output.logits[0].tolist())
            continue
        hidden = output.last_hidden_state[0]
        pooled = {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(0)}[options["pooling"]]
        rows.append(pooled.tolist())
    return rows


def _difference(source: Path, yes: str, no: str) -> np.ndarray[Any, Any]:
    """Return the output embedding of `yes` minus that of `no`, as an array [hidden size].

    The dot product of a hidden state and this array is the logit of `yes` minus that of `no`.
    """
    tokenizer = AutoTokenizer.from_pretrained(source)
    head = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).get_output_embeddings().weight.detach()
    rows = [head[tokenizer.convert_tokens_to_ids(token)] for token in (yes, no)]
    difference: np.ndarray[Any, Any] = (rows[0] - rows[1]).numpy()
    return difference


def main(source: Path, target: Path, options: dict[str, str]) -> None:
    """Export a model and, with option `check`, write what the original computes for the texts in it."""
    if "check" in options and not can_quantize(source):
        if "must_quantize" in options:
            raise ValueError("the model is too large to be quantized to int8; use --precision f32")
        options = {name: value for name, value in options.items() if name != "quantize"}
    export_encoder(source, target, options)
    if "check" in options:
        reference = compute_reference(source, json.loads(options["check"]), options)
        (target / "reference.json").write_text(json.dumps(reference), encoding="utf-8")


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
