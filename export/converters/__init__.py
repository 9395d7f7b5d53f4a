"""The converters: functions that turn downloaded files into the version folder that a backend loads."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from contract.paths import CHECKOUT

Convert = Callable[[Path, Path, Mapping[str, str]], dict[str, str]]


class Conversion(NamedTuple):
    """A converter: a function, and the files that implement it and pin its dependencies.

    `function` is MODULE.FUNCTION in this folder. It is imported only when called, so that commands that convert
    nothing, such as `trident list`, do not import OpenVINO. After a change to any of `files`, the next export converts
    the converter's models again.
    """

    function: str
    files: tuple[str, ...]

    def convert(self, source: Path, version: Path, options: Mapping[str, str]) -> dict[str, str]:
        """Convert a file or folder of weights into a version folder, and return parameters for config.pbtxt."""
        module, _, name = self.function.partition(".")
        convert: Convert = getattr(import_module(f"export.converters.{module}"), name)
        return convert(source, version, options)

    def source(self) -> str:
        """Return the contents of `files`, joined."""
        return "".join((CHECKOUT / file).read_text(encoding="utf-8") for file in self.files)


_ENCODER = (
    "export/converters/encoder.py",
    "export/converters/fixed_scales.py",
    "export/converters/calibration.txt",
)
_CHAT_FOLDER = (
    "export/converters/chat_folder.py",
    "export/converters/readable_folder.py",
    "export/converters/generation_defaults.py",
    "export/converters/template_formats.py",
    "export/isolated/chat_model.py",
)
CONVERTERS = {
    "gguf": Conversion(
        "gguf.convert_gguf",
        (
            "export/converters/gguf.py",
            "export/converters/generation_defaults.py",
            "export/converters/gguf_tokenizer.py",
            "export/converters/openvino_detokenizer.py",
            "export/converters/openvino_weights.py",
            "export/converters/template_formats.py",
            "contract/byte_alphabet.py",
        ),
    ),
    "llamacpp": Conversion(
        "llamacpp.link_gguf",
        (
            "export/converters/llamacpp.py",
            "export/converters/gguf.py",
            "export/converters/generation_defaults.py",
            "export/converters/template_formats.py",
            "export/gguf_header.py",
            "export/llamacpp.py",
        ),
    ),
    "llamacpp-encoder": Conversion(
        "llamacpp.link_encoder", ("export/converters/llamacpp.py", "export/gguf_header.py", "export/llamacpp.py")
    ),
    "openvino-chat": Conversion(
        "chat_folder.convert_to_openvino",
        (
            *_CHAT_FOLDER,
            "export/converters/openvino_weights.py",
            "export/isolated/openvino_chat.py",
            "requirements/openvino.lock",
        ),
    ),
    "llamacpp-chat": Conversion(
        "chat_folder.convert_to_gguf",
        (
            *_CHAT_FOLDER,
            "export/converters/llamacpp.py",
            "export/isolated/gguf_chat.py",
            "export/gguf_header.py",
            "export/llamacpp.py",
            "requirements/gguf.lock",
        ),
    ),
    "openvino-asr": Conversion(
        "speech_recognizer.convert_to_openvino",
        (
            "export/converters/speech_recognizer.py",
            "export/converters/readable_folder.py",
            "export/isolated/openvino_fun_asr.py",
            "export/isolated/openvino_qwen3_asr.py",
            "export/isolated/qwen3_asr_layout.py",
            "requirements/asr.lock",
            "requirements/openvino.lock",
        ),
    ),
    "llamacpp-asr": Conversion(
        "speech_recognizer.convert_to_gguf",
        (
            "export/converters/speech_recognizer.py",
            "export/converters/gguf_folder.py",
            "export/converters/openvino_weights.py",
            "export/converters/readable_folder.py",
            "export/isolated/gguf_chat.py",
            "export/isolated/glm_asr_parts.py",
            "export/llamacpp.py",
            "requirements/gguf.lock",
        ),
    ),
    "encoder-folder": Conversion(
        "encoder.convert_folder",
        (
            *_ENCODER,
            "export/converters/readable_folder.py",
            "export/isolated/onnx_encoder.py",
            "export/isolated/onnx_int8.py",
            "requirements/onnx.lock",
        ),
    ),
    "whisper-folder": Conversion(
        "whisper.convert_folder",
        (
            "export/converters/whisper.py",
            "export/converters/readable_folder.py",
            "export/isolated/ctranslate2_whisper.py",
            "requirements/onnx.lock",
        ),
    ),
    "ctranslate2": Conversion("whisper.convert_published", ("export/converters/whisper.py",)),
    "openvino-whisper": Conversion(
        "whisper.convert_to_openvino",
        (
            "export/converters/whisper.py",
            "export/isolated/openvino_whisper.py",
            "export/isolated/ctranslate2_arrays.py",
            "requirements/openvino.lock",
        ),
    ),
    "hibari": Conversion("speech.convert_hibari", ("export/converters/speech.py",)),
    "kokoro": Conversion("speech.convert_kokoro", ("export/converters/speech.py",)),
    "kokoro-hub": Conversion("speech.convert_kokoro_hub", ("export/converters/speech.py",)),
    "pocket-tts": Conversion("speech.convert_pocket_tts", ("export/converters/speech.py",)),
    "voxcpm": Conversion(
        "speech.convert_voxcpm",
        (
            "export/converters/speech.py",
            "export/isolated/voxcpm_weights.py",
            "backends/speech/voxcpm_process.py",
            "requirements/voxcpm.lock",
        ),
    ),
    "onnx-segmentation": Conversion("segmentation.convert_published", ("export/converters/segmentation.py",)),
    "vision-language": Conversion(
        "vision_language.convert_published",
        (
            "export/converters/vision_language.py",
            "export/model_info.py",
            "export/converters/generation_defaults.py",
            "export/isolated/openvino_vision_language.py",
            "requirements/openvino.lock",
        ),
    ),
    "diffusers": Conversion(
        "diffusion.convert_to_openvino",
        ("export/converters/diffusion.py", "export/isolated/openvino_diffusion.py", "requirements/openvino.lock"),
    ),
    "onnx-ocr": Conversion("ocr.convert_published", ("export/converters/ocr.py",)),
    "onnx-encoder": Conversion("encoder.convert_published", _ENCODER),
    "optimum-encoder": Conversion(
        "encoder.convert_with_optimum",
        (
            *_ENCODER,
            "export/isolated/onnx_encoder.py",
            "export/isolated/onnx_int8.py",
            "requirements/onnx.lock",
        ),
    ),
}
