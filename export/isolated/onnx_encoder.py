"""Exports safetensors to ONNX: `python -m export.isolated.onnx_encoder SOURCE TARGET OPTIONS`, in .venv-onnx.

OPTIONS is a JSON object; see export.converters.encoder.convert_with_optimum.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx import main_export
from transformers import AutoModelForCausalLM, AutoTokenizer

from export.isolated import onnx_int8


def export_encoder(source: Path, target: Path, options: dict[str, str]) -> None:
    """Write model.onnx (output: the last hidden state), tokenizer.json and, with option `score_tokens`, score.npy."""
    main_export(str(source), str(target), task="feature-extraction", library_name="transformers", do_validation=False)
    if options.get("quantize") == "int8":
        exported = target / "exported.onnx"
        (target / "model.onnx").rename(exported)
        onnx_int8.quantize(exported, target / "model.onnx", target / "tokenizer.json")
    if tokens := options.get("score_tokens"):
        np.save(target / "score.npy", _difference(source, *tokens.split()))


def _difference(source: Path, yes: str, no: str) -> np.ndarray[Any, Any]:
    """Return the output embedding of `yes` minus that of `no`, as an array [hidden size].

    The dot product of a hidden state and this array is the logit of `yes` minus that of `no`.
    """
    tokenizer = AutoTokenizer.from_pretrained(source)
    head = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).get_output_embeddings().weight.detach()
    rows = [head[tokenizer.convert_tokens_to_ids(token)] for token in (yes, no)]
    difference: np.ndarray[Any, Any] = (rows[0] - rows[1]).numpy()
    return difference


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    export_encoder(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
