"""Computes how likely a chat model finds a text: `python -m backends.generation.engine.likelihood`.

Arguments: the version folder, the parameters in its config.pbtxt as JSON, and a file with the text's token IDs as JSON.
It prints, as JSON, the negative log-likelihood of each token after the first, as the engine computes it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.parameters import GenerationParameters, read_parameters

_PIECE = 64


def losses(folder: Path, parameters: GenerationParameters, tokens: Sequence[int]) -> list[float]:
    """Return the negative log-likelihood of each token after the first."""
    logits = _llamacpp_logits if parameters.engine == "llamacpp" else _openvino_logits
    values = logits(folder, parameters, tokens)[:-1].astype(np.float64)
    values -= values.max(-1, keepdims=True)
    likelihood = values[np.arange(len(values)), tokens[1:]] - np.log(np.exp(values).sum(-1))
    found: list[float] = (-likelihood).tolist()
    return found


def _openvino_logits(folder: Path, parameters: GenerationParameters, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    import openvino  # takes a second to import

    properties = {"INFERENCE_PRECISION_HINT": parameters.precision, "KV_CACHE_PRECISION": parameters.kv_cache_precision}
    core = openvino.Core()
    request = core.compile_model(core.read_model(folder / "openvino_model.xml"), "CPU", properties)
    ids = np.array([tokens], dtype=np.int64)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(len(tokens), dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    known = {name for port in request.inputs for name in port.names}
    outputs = request({name: value for name, value in inputs.items() if name in known})
    logits: npt.NDArray[np.float32] = outputs["logits"][0]
    return logits


def _llamacpp_logits(folder: Path, parameters: GenerationParameters, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    from backends.common.llamacpp.context import LlamaContext, Piece  # needs the libraries of llama.cpp

    context = LlamaContext(
        folder, cells=len(tokens) + _PIECE, max_batch=_PIECE, max_running=_PIECE, threads=parameters.threads or 2
    )
    rows = []
    for start in range(0, len(tokens), _PIECE):
        piece = tokens[start : start + _PIECE]
        rows.append(context.decode([Piece(0, start, piece, len(piece))]).copy())
    return np.concatenate(rows)


def main() -> None:
    """Print the losses for the arguments on the command line."""
    folder, texts, tokens = sys.argv[1:]
    parameters = read_parameters(GenerationParameters, json.loads(texts))
    print(json.dumps(losses(Path(folder), parameters, json.loads(Path(tokens).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
