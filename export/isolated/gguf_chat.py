"""Converts chat models to GGUF: `python -m export.isolated.gguf_chat SOURCE TARGET.gguf TYPE [projector]`.

It runs in .venv-gguf. SOURCE is a published folder, and TYPE is f16 or q8_0. With `projector`, the part that encodes
images or audio is converted, otherwise the part that generates text. llama.cpp's converter loads tokenizers with code
from the folder if there is any, so SOURCE must have only code that is trusted.
"""

import importlib
import json
import sys
from pathlib import Path

import conversion
import convert_hf_to_gguf


def convert(source: Path, target: str, kind: str, *, projector: bool) -> None:
    """Write a GGUF file with the weights in a type, and the tokenizer and chat template."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    # The converter reads the part that generates text under any of these names, but finds its class only by one.
    names = ("text_config", "llm_config", "lm_config", "language_config")
    config["text_config"] = next((config[name] for name in names if name in config), {})
    part = conversion.ModelType.MMPROJ if projector else conversion.ModelType.TEXT
    modules = conversion.MMPROJ_MODEL_MAP if projector else conversion.TEXT_MODEL_MAP
    _import(f"conversion.{modules[conversion.get_model_architecture(config, part)]}")
    flags = ["--mmproj"] if projector else []
    sys.argv = ["convert_hf_to_gguf", str(source), "--outtype", kind, "--outfile", target, *flags]
    convert_hf_to_gguf.main()


def _import(module: str) -> None:
    """Import a module of the converter, some of which name architectures that the converter's own gguf lacks.

    The missing names belong to other models than the one that is converted, so their values do not matter.
    """
    missing: set[str] = set()
    while True:
        try:
            importlib.import_module(module)
        except AttributeError as error:
            name = error.name
            if not isinstance(error.obj, type) or name is None or name in missing:
                raise
            missing.add(name)
            setattr(error.obj, name, None)
        else:
            return


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2], sys.argv[3], projector="projector" in sys.argv[4:])
