"""Exports image generation models to OpenVINO, in .venv-openvino.

`python -m export.isolated.openvino_diffusion SOURCE TARGET FORMAT`: SOURCE is a published folder with model_index.json
(Stable Diffusion, SDXL, LCM or FLUX). TARGET receives the files that OpenVINO GenAI loads, with weights in FORMAT:
fp32, fp16 or int8.
"""

import json
import logging
import sys
from collections import Counter
from pathlib import Path

import nncf
import openvino
from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig

# Weight format → OpenVINO's names of the types that weights may have in it.
_TYPES = {"fp32": ("f32",), "fp16": ("f16",), "int8": ("u8", "i8")}

# Maximum share of the weights' bytes in other types: biases, norms and, with fp16, values outside float16's range.
_MAX_OTHER_TYPES = 0.1


def export_diffusion(source: Path, target: Path, weight_format: str) -> None:
    """Write networks, tokenizers and configurations. Raise ValueError if weights were not converted to the format."""
    main_export(
        str(source),
        target,
        task=_task(source),
        library_name="diffusers",
        ov_config=OVConfig(dtype="fp32" if weight_format == "fp32" else "fp16"),
        convert_tokenizer=True,
        local_files_only=True,
        variant=_variant(source),
    )
    for path in sorted(target.glob("*/openvino_model.xml")):
        # The exporter accepts an int8 configuration, but leaves the weights unchanged.
        if weight_format == "int8":
            _compress(path)
        _check(path, weight_format)


def _task(source: Path) -> str:
    name = json.loads((source / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    return "inpainting" if "Inpaint" in name else "fill" if "Fill" in name else "text-to-image"


def _variant(source: Path) -> str | None:
    """Return "fp16" if all weights are published only in this variant, else None."""
    names = [path.name for path in source.glob("*/*.safetensors")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


def _compress(path: Path) -> None:
    compressed = nncf.compress_weights(openvino.Core().read_model(path))
    # The model's file is still memory-mapped: write a second file, then replace it.
    rewritten = path.with_name("compressed.xml")
    openvino.save_model(compressed, rewritten, compress_to_fp16=False)
    rewritten.replace(path)
    rewritten.with_suffix(".bin").replace(path.with_suffix(".bin"))


def _check(path: Path, weight_format: str) -> None:
    """Raise ValueError unless nearly all weights of a network have the format's type."""
    sizes: Counter[str] = Counter()
    for operation in openvino.Core().read_model(path).get_ops():
        if operation.get_type_name() == "Constant":
            sizes[operation.get_element_type().get_type_name()] += operation.get_byte_size()
    wanted = sum(sizes[name] for name in _TYPES[weight_format])
    if wanted < (1 - _MAX_OTHER_TYPES) * sizes.total():
        raise ValueError(f"{path.parent.name} was not converted to {weight_format}; bytes by type: {dict(sizes)}")


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    export_diffusion(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
