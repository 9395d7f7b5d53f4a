"""What converts what: one function a conversion, from fetched files to a version folder that a backend loads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from export import (
    diffusion_model,
    gguf_model,
    ocr_model,
    onnx_encoder,
    segmentation_model,
    speech_model,
    vision_model,
    whisper_model,
)

_CHECKOUT = Path(__file__).resolve().parents[1]


class Conversion(NamedTuple):
    """`convert(source, version, options)` makes a version folder of a fetched file or folder, and returns parameters
    for config.pbtxt. A change in one of `files` exports what it made again."""

    convert: Callable[[Path, Path, Mapping[str, str]], dict[str, str]]
    files: tuple[str, ...]

    def source(self) -> str:
        """Return the text of the files."""
        return "".join((_CHECKOUT / file).read_text(encoding="utf-8") for file in self.files)


CONVERTERS = {
    "gguf": Conversion(
        gguf_model.convert_gguf,
        (
            "export/gguf_model.py",
            "export/gguf_tokenizer.py",
            "export/openvino_detokenizer.py",
            "export/openvino_weights.py",
        ),
    ),
    "ctranslate2": Conversion(whisper_model.convert_published, ("export/whisper_model.py",)),
    "openvino-whisper": Conversion(
        whisper_model.convert_to_openvino,
        (
            "export/whisper_model.py",
            "export/openvino_whisper.py",
            "export/ctranslate2_arrays.py",
            "requirements/openvino.lock",
        ),
    ),
    "hibari": Conversion(speech_model.convert_hibari, ("export/speech_model.py",)),
    "kokoro": Conversion(speech_model.convert_kokoro, ("export/speech_model.py",)),
    "pocket-tts": Conversion(speech_model.convert_pocket_tts, ("export/speech_model.py",)),
    "onnx-segmentation": Conversion(segmentation_model.convert_published, ("export/segmentation_model.py",)),
    "vision-language": Conversion(
        vision_model.convert_published,
        ("export/vision_model.py", "export/vision_language.py", "requirements/openvino.lock"),
    ),
    "diffusers": Conversion(
        diffusion_model.convert_to_openvino,
        ("export/diffusion_model.py", "export/openvino_diffusion.py", "requirements/openvino.lock"),
    ),
    "onnx-ocr": Conversion(ocr_model.convert_published, ("export/ocr_model.py",)),
    "onnx-encoder": Conversion(onnx_encoder.convert_published, ("export/onnx_encoder.py",)),
    "optimum-encoder": Conversion(
        onnx_encoder.convert_with_optimum,
        ("export/onnx_encoder.py", "export/optimum_onnx.py", "export/onnx_int8.py", "requirements/onnx.lock"),
    ),
}
