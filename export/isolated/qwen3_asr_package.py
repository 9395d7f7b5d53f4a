"""Imports the model code of the package qwen-asr, without the libraries that the package needs for other purposes.

Importing `qwen_asr` would import librosa, nagisa and others. With an empty module in its place, only its modules in
`qwen_asr.core.transformers_backend` are imported, which need nothing but torch and transformers.
"""

import importlib.util
import sys
from types import ModuleType

from transformers import AutoConfig, AutoModel, AutoProcessor


def _insert_empty_package(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__spec__ = spec
    sys.modules[name] = package


_insert_empty_package("qwen_asr")

from qwen_asr.core.transformers_backend import (
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
)


def register() -> None:
    """Let transformers load the model by the type in its configuration."""
    AutoConfig.register("qwen3_asr", Qwen3ASRConfig)
    AutoModel.register(Qwen3ASRConfig, Qwen3ASRForConditionalGeneration)
    AutoProcessor.register(Qwen3ASRConfig, Qwen3ASRProcessor)


__all__ = ["Qwen3ASRConfig", "Qwen3ASRForConditionalGeneration", "Qwen3ASRProcessor", "register"]
