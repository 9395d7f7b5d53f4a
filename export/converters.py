"""What converts what: one function a conversion, from fetched files to a version folder that a backend loads."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from export import gguf_model, onnx_encoder

# (source file or folder, version folder, the entry's conversion options) → parameters for config.pbtxt
Converter = Callable[[Path, Path, Mapping[str, str]], dict[str, str]]

CONVERTERS: dict[str, Converter] = {
    "gguf": gguf_model.convert_gguf,
    "onnx-encoder": onnx_encoder.convert_published,
    "optimum-encoder": onnx_encoder.convert_with_optimum,
}


def converter_source(name: str) -> str:
    """Return the text a converter depends on, so that a change of it re-exports what it made."""
    module = inspect.getmodule(CONVERTERS[name])
    neighbours = [value for value in vars(module).values() if inspect.ismodule(value) and "export." in value.__name__]
    return "".join(inspect.getsource(part) for part in [module, *neighbours] if part)
