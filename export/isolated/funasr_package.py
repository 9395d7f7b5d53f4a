"""Imports the layers of Fun-ASR-Nano from the package funasr, without the libraries that funasr needs otherwise.

Importing `funasr`, as optimum.intel does where it finds it, would import every module of it, so import this module
first. With empty modules in place of four, only those with layers are imported.
"""

import importlib.util
import sys
from types import ModuleType


def _insert(name: str, paths: tuple[str, ...] = (), **attributes: object) -> None:
    module = ModuleType(name)
    module.__path__ = list(paths)
    vars(module).update(attributes)
    sys.modules[name] = module


_spec = importlib.util.find_spec("funasr")
if _spec is None:
    raise ModuleNotFoundError("No module named 'funasr'", name="funasr")
_insert("funasr", tuple(_spec.submodule_search_locations or ()), __spec__=_spec)
_insert("funasr.utils.load_utils", load_audio_text_image_video=None, extract_fbank=None)  # needs librosa, kaldiio
_insert("funasr.utils.datadir_writer", DatadirWriter=None)
_insert("funasr.models.paraformer.search", Hypothesis=None)  # needs rapidfuzz

from funasr.models.llm_asr.adaptor import Transformer
from funasr.models.sense_voice.model import SenseVoiceEncoderSmall

__all__ = ["SenseVoiceEncoderSmall", "Transformer"]
