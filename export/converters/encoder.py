"""Embedding and rerank models as ONNX, beside their tokenizer."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments
from export.fetch import ExportError


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Take a folder that has model.onnx and tokenizer.json as it is."""
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copyfile(source / name, version / name)
    return _describe(version)


def convert_with_optimum(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Export a folder of safetensors with optimum, in an environment that has torch.

    Options: `model_type`, where the published config.json lacks it; `quantize = "int8"`; `score_tokens = "yes no"`,
    which makes a reranker of a language model, scoring by the first word's logit less the second's.
    """
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        read, made = Path(folder) / "read", Path(folder) / "made"
        _link(source, read, options)
        environments.run(".venv-onnx", "export.isolated.onnx_encoder", str(read), str(made), json.dumps(dict(options)))
        for name in ("model.onnx", "model.onnx_data", "tokenizer.json", "score.npy"):
            if (made / name).exists():
                (made / name).rename(version / name)
    return _describe(version)


def _link(source: Path, target: Path, options: Mapping[str, str]) -> None:
    """Make a folder with the same files, but for the model type in config.json: the source may be the user's own."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path.resolve())
    if model_type := options.get("model_type"):
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        (target / "config.json").unlink()
        (target / "config.json").write_text(json.dumps(config | {"model_type": model_type}), encoding="utf-8")


def _describe(version: Path) -> dict[str, str]:
    """Return the width of the model's output; a score's is 1."""
    import onnxruntime  # a moment to import: only where it is needed

    if (version / "score.npy").exists():
        return {"dimensions": "1"}
    output = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"]).get_outputs()[0]
    width = output.shape[-1]
    if not isinstance(width, int):
        raise ExportError(f"The output {output.name} of the model has no fixed width, but {output.shape}")
    return {"dimensions": str(width)}
