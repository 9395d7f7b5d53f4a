"""The parameters in config.pbtxt that backends read, one dataclass per backend.

The export writes the parameters to config.pbtxt as text, with values from export/defaults.toml, the catalog and the
converted weights. Operators may edit the parameters there. Lists and dictionaries are written as JSON.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

log = logging.getLogger(__name__)

# The value of a parameter that the launcher replaces by a number; without the launcher, it stands for the default.
_AUTO = "auto"

# Renamed parameters: old name → current name.
_RENAMED = {"most_seconds": "max_seconds"}  # wording: allow


@dataclass(frozen=True)
class GenerationParameters:
    """Parameters of chat models, which run on OpenVINO GenAI or llama.cpp."""

    device: str
    precision: str
    kv_cache_precision: str
    cache_size_gb: int
    max_num_batched_tokens: int
    queue_size: int
    context_length: int
    max_pixels: int
    image_tokens: int
    prompt_lookup: int = 0
    schema_in_prompt: bool = True
    structured_frequency_penalty: float = 0.0
    engine: str = "openvino"
    threads: int = 0
    max_num_seqs: int = 64
    cache_tokens: int = 0
    """The size of the KV cache; 0: `cache_size_gb`."""
    kv_bytes_per_token: int = 0


@dataclass(frozen=True)
class EncoderParameters:
    """Parameters of embedding models and rerankers, which run on onnxruntime."""

    task: str
    device: str
    threads: int
    context_length: int
    pooling: str
    max_batch_tokens: int
    normalize: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    template: str | None = None
    network: dict[str, Any] | None = None
    """The model of Triton that computes the network, if the backend does not: `model`, its name; `inputs` and `output`,
    the names of its tensors; `max_rows`, its largest batch, if limited."""


@dataclass(frozen=True)
class TranscriptionParameters:
    """Parameters of transcription models."""

    engine: str
    device: str
    compute_type: str
    precision: str
    threads: int
    batch_size: int
    beam_size: int
    block_seconds: float
    max_seconds: float
    queue_size: int
    family: str = ""
    """Of speech recognizers that are language models: how they are prompted."""


@dataclass(frozen=True)
class SpeechParameters:
    """Parameters of speech synthesis models."""

    engine: str
    device: str
    threads: int
    parallel: int
    max_characters: int
    queue_size: int
    voice: str
    voice_aliases: dict[str, str]
    languages: str = "en"
    """Codes of the languages that the model speaks, separated by spaces."""
    environment: str = ""
    """The folder in $TRIDENT_ENVIRONMENTS with the Python environment of the engine, if it runs in its own process."""


@dataclass(frozen=True)
class SegmentationParameters:
    """Parameters of background removal models, which run on onnxruntime."""

    device: str
    threads: int
    parallel: int
    batch_size: int
    size: int
    mean: list[float]
    std: list[float]
    sigmoid: bool
    max_pixels: int
    queue_size: int
    network: dict[str, Any] | None = None
    """See EncoderParameters."""


@dataclass(frozen=True)
class OCRParameters:
    """Parameters of PP-OCR models, which run through RapidOCR."""

    device: str
    threads: int
    parallel: int
    batch_size: int
    max_side: int
    min_score: float
    max_pixels: int
    queue_size: int


@dataclass(frozen=True)
class DiffusionParameters:
    """Parameters of image generation models, which run on OpenVINO GenAI."""

    device: str
    precision: str
    threads: int
    kernel_cache: int
    steps_standard: int
    steps_hd: int
    guidance_vivid: float
    guidance_natural: float
    strength: float
    max_steps: int
    max_pixels: int
    max_input_pixels: int
    queue_size: int


PARAMETERS: dict[str, type[Any]] = {
    "generation": GenerationParameters,
    "encoder": EncoderParameters,
    "transcription": TranscriptionParameters,
    "speech": SpeechParameters,
    "segmentation": SegmentationParameters,
    "ocr": OCRParameters,
    "diffusion": DiffusionParameters,
}
"""Backend name → parameter class."""

P = TypeVar("P")


def read_parameters(kind: type[P], texts: Mapping[str, str]) -> P:
    """Return a backend's parameters from config.pbtxt's strings. `kind` is the backend's dataclass.

    Raises ValueError if a parameter without a default is missing, or if a value is invalid.
    """
    texts = _with_new_names(texts)
    values = {}
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        has_default = field.default is not dataclasses.MISSING
        if field.name in texts and not (has_default and texts[field.name] == _AUTO):
            values[field.name] = _convert(field.name, hints[field.name], texts[field.name])
        elif not has_default:
            raise ValueError(f"config.pbtxt lacks the parameter '{field.name}'; export the model again")
    return kind(**values)


def _with_new_names(texts: Mapping[str, str]) -> dict[str, str]:
    renamed = dict(texts)
    for old, new in _RENAMED.items():
        if old in renamed:
            log.warning("the parameter '%s' is now called '%s'", old, new)
            # If both names are present, the value of the old name takes precedence. An operator must have set
            # that value, because the export writes only new names.
            renamed[new] = renamed.pop(old)
    return renamed


def _convert(name: str, kind: Any, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float):
            return kind(text)
        return text if kind in (str, str | None) else json.loads(text)
    except (ValueError, KeyError):
        raise ValueError(f"config.pbtxt: '{text[:100]}' is not a valid value of the parameter '{name}'") from None
