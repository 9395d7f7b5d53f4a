"""What converts what: one function a conversion, from fetched files to a version folder that a backend loads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from export import gguf_model, onnx_encoder


class Conversion(NamedTuple):
    """`convert(source, version, options)` makes a version folder of a fetched file or folder, and returns parameters
    for config.pbtxt. A change in one of `modules` exports what it made again."""

    convert: Callable[[Path, Path, Mapping[str, str]], dict[str, str]]
    modules: tuple[str, ...]

    def source(self) -> str:
        """Return the text of the modules."""
        return "".join(Path(__file__).with_name(f"{module}.py").read_text() for module in self.modules)


CONVERTERS = {
    "gguf": Conversion(gguf_model.convert_gguf, ("gguf_model", "gguf_tokenizer", "openvino_weights")),
    "onnx-encoder": Conversion(onnx_encoder.convert_published, ("onnx_encoder",)),
    "optimum-encoder": Conversion(onnx_encoder.convert_with_optimum, ("onnx_encoder", "optimum_onnx", "onnx_int8")),
}
