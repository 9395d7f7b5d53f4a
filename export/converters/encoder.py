"""Converters for embedding and rerank models, which write an ONNX network and its tokenizer."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export import environments
from export.converters.readable_folder import readable_folder
from export.converters.self_check import CHECK_PAIRS, CHECK_TEXTS, QualityLoss, check_encoder
from export.fetch import ExportError


def convert_published(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Copy model.onnx and tokenizer.json from a published folder. The scales of an int8 model are fixed."""
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copyfile(source / name, version / name)
    _fix_scales(version)
    return _describe(version)


def convert_with_optimum(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Export a folder of safetensors to ONNX with Optimum, in an environment that has torch.

    Options: `model_type`, if the published config.json lacks it; `quantize = "int8"`; `score_tokens = "yes no"`, which
    turns a language model into a reranker whose score is the first token's logit minus the second's.
    """
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        read, output = Path(folder) / "read", Path(folder) / "output"
        _link(source, read, options)
        _export(read, output, version, options)
    if options.get("quantize") == "int8":
        _fix_scales(version)
    return _describe(version)


def _export(source: Path, output: Path, version: Path, options: Mapping[str, str]) -> None:
    """Export a folder in the environment that has torch, and move the files of the model to the version folder."""
    environments.run(".venv-onnx", "export.isolated.onnx_encoder", str(source), str(output), json.dumps(dict(options)))
    for name in ("model.onnx", "model.onnx_data", "tokenizer.json", "score.npy"):
        if (output / name).exists():
            (output / name).rename(version / name)


def convert_folder(source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Convert a publisher's folder to ONNX, in int8 if that loses little, and compare it with the original.

    Options: `task`; `precision`, which is `int8`, `f32`, or `auto` for int8 unless it loses too much or the model is
    too large to be quantized; `parameters`, as JSON, with which the backend runs it; `score_tokens`. Raises
    ExportError.
    """
    precision = options["precision"]
    for attempt in ("int8", "f32") if precision == "auto" else (precision,):
        for path in version.iterdir():
            path.unlink()
        try:
            return _convert_folder(source, version, options, attempt)
        except QualityLoss as error:
            if "force" in options:
                print(f"  {error}; exported because of --force", flush=True)
                return _describe_folder(version, options)
            if precision != "auto" or attempt == "f32":
                raise
            print(f"  {error}; using float32", flush=True)
    raise AssertionError


def _convert_folder(source: Path, version: Path, options: Mapping[str, str], precision: str) -> dict[str, str]:
    known: dict[str, str] = json.loads(options["parameters"])
    asked = {"task": options["task"], "pooling": known["pooling"]}
    asked |= {"quantize": "int8"} if precision == "int8" else {}
    asked |= {"must_quantize": "true"} if options["precision"] == "int8" else {}
    texts = CHECK_PAIRS if options["task"] == "rerank" else CHECK_TEXTS
    if "score_tokens" in options:
        asked["score_tokens"] = options["score_tokens"]
    else:
        asked["check"] = json.dumps(texts)
    with readable_folder(source, options) as read, tempfile.TemporaryDirectory(dir=version.parent) as folder:
        output = Path(folder) / "output"
        _export(read, output, version, asked)
        reference = json.loads((output / "reference.json").read_bytes()) if "check" in asked else None
    if not (version / "model.onnx_data").exists():
        _fix_scales(version)
    if reference is not None:
        is_int8 = precision == "int8" and not (version / "model.onnx_data").exists()
        given = known | {"task": options["task"]}
        check_encoder(version, given, texts, reference, "int8" if is_int8 else "f32")
    return _describe_folder(version, options)


def _describe_folder(version: Path, options: Mapping[str, str]) -> dict[str, str]:
    return {"dimensions": "1"} if options["task"] == "rerank" else _describe(version)


def _fix_scales(version: Path) -> None:
    """If the model quantizes activations with one scale per batch, rewrite it so that each row is independent."""
    from export.converters import fixed_scales  # onnx is slow to import

    model = version / "model.onnx"
    if fixed_scales.has_dynamic_scales(model):
        fixed_scales.fix_scales(model, version / "fixed.onnx", version / "tokenizer.json")
        (version / "fixed.onnx").replace(model)


def _link(source: Path, target: Path, options: Mapping[str, str]) -> None:
    """Link the files of `source` into a new folder. If option `model_type` is set, write it to a copy of config.json.

    The source may be the user's own folder, which must not change.
    """
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path.resolve())
    if model_type := options.get("model_type"):
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        (target / "config.json").unlink()
        (target / "config.json").write_text(json.dumps(config | {"model_type": model_type}), encoding="utf-8")


def _describe(version: Path) -> dict[str, str]:
    """Return the parameter `dimensions`: the width of the model's output, or 1 if score.npy turns it into a score."""
    import onnxruntime  # slow to import

    if (version / "score.npy").exists():
        return {"dimensions": "1"}
    output = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"]).get_outputs()[0]
    width = output.shape[-1]
    if not isinstance(width, int):
        raise ExportError(f"The model's output {output.name} has no fixed width; its shape is {output.shape}")
    return {"dimensions": str(width)}
