"""The sampling parameters that a publisher recommends, from a Hugging Face folder or the metadata of a GGUF file."""

import json
from collections.abc import Mapping
from typing import Any

from contract.options import GENERATION_DEFAULTS

# GGUF's names of the parameters.
_GGUF = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}

# The range of each parameter in requests. A value outside of it is ignored.
_LIMITS = {
    "temperature": (0, 2),
    "top_p": (1e-6, 1),
    "top_k": (-1, 1 << 30),
    "min_p": (0, 0.999999),
    "repetition_penalty": (1e-6, 2),
}


def from_generation_config(generation: Mapping[str, Any]) -> dict[str, str]:
    """Return the model's parameter `generation_defaults`, if generation_config.json recommends any."""
    return _parameter({name: generation.get(name) for name in GENERATION_DEFAULTS})


def from_gguf(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the model's parameter `generation_defaults`, if the metadata of a GGUF file recommends any."""
    return _parameter({name: metadata.get(key) for name, key in _GGUF.items()})


def _parameter(values: Mapping[str, Any]) -> dict[str, str]:
    given = {
        name: round(value, 6)
        for name, value in values.items()
        if isinstance(value, int | float) and _LIMITS[name][0] <= value <= _LIMITS[name][1]
    }
    return {"generation_defaults": json.dumps(given)} if given else {}
