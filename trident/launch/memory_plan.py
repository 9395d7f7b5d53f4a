"""Fits the models that are served together into memory, and writes the configurations that Triton loads.

`python -m trident.launch.memory_plan` runs before Triton starts, with the settings in the environment. It writes the
model repository that Triton loads: links to the models' folders, and a config.pbtxt for each chat model in which `auto`
is replaced by numbers. It is a process of its own, so that the launcher does not keep its imports.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from contract.paths import latest_version
from export.memory import memory_limit
from export.triton_config import parse_config
from frontend.settings import Settings, load_settings
from frontend.triton.served_model import write_model
from trident.launch.preflight import LaunchError

_MB = 1_000_000

# What a backend needs apart from the weights and the KV cache, and what Triton and the frontend need.
_OVERHEAD = {
    "generation": 300 * _MB,
    "encoder": 60 * _MB,
    "transcription": 100 * _MB,
    "speech": 300 * _MB,
    "segmentation": 60 * _MB,
    "ocr": 100 * _MB,
    "diffusion": 500 * _MB,
}
_BASE = 200 * _MB

# What a process with torch needs in addition, in which some speech models run.
_TORCH = 400 * _MB

# The share of the memory that is left for KV caches, unless a setting says otherwise. The rest is for what requests
# need for a while, and for other programs.
_CACHE_SHARE = 0.4

# By default, the KV cache holds a request of the full context, but at least the usual and at most the maximum number of
# tokens. With fewer than the minimum, a model is of no use.
_USUAL_CACHE_TOKENS, _MAX_CACHE_TOKENS, _MIN_CACHE_TOKENS = 32_768, 131_072, 2_048

_MAX_SEQUENCES, _TOKENS_PER_SEQUENCE = 64, 256


@dataclass(frozen=True)
class Footprint:
    """The memory that a model needs."""

    name: str
    weights: int
    overhead: int
    kv_bytes_per_token: int = 0
    cache_tokens: int = 0
    other_cache: int = 0
    """The size of a KV cache whose tokens have an unknown size, in bytes."""

    @property
    def cache(self) -> int:
        """The size of the KV cache in bytes."""
        return self.kv_bytes_per_token * self.cache_tokens + self.other_cache

    @property
    def total(self) -> int:
        """The memory in bytes."""
        return self.weights + self.overhead + self.cache

    def describe(self) -> str:
        """Return the arithmetic."""
        parts = [f"{_gb(self.weights)} for the weights", f"{_gb(self.overhead)} for the engine"]
        if self.other_cache:
            parts.append(f"{_gb(self.cache)} for the KV cache")
        elif self.cache:
            tokens = f"{self.cache_tokens:,} tokens x {self.kv_bytes_per_token:,} bytes"
            parts.append(f"{_gb(self.cache)} for the KV cache ({tokens})")
        return f"{self.name}: {_gb(self.total)}: {', '.join(parts)}"


@dataclass(frozen=True)
class MemoryPlan:
    """The models that are served together, and the numbers that replace `auto` in their parameters."""

    footprints: Sequence[Footprint]
    parameters: Mapping[str, Mapping[str, str]]
    """Model → parameter → value."""
    limit: int

    @property
    def total(self) -> int:
        """The memory of all models, Triton and the frontend, in bytes."""
        return _BASE + sum(footprint.total for footprint in self.footprints)

    def describe(self) -> list[str]:
        """Return the arithmetic, a line for each model."""
        lines = [footprint.describe() for footprint in self.footprints]
        return [*lines, f"with {_gb(_BASE)} for Triton and the frontend: {_gb(self.total)} of {_gb(self.limit)}"]


def make_plan(settings: Settings, names: Sequence[str], reserved: int = 0) -> MemoryPlan:
    """Return the plan for models of the repository. Raise LaunchError if they do not fit into memory.

    `reserved` is what other models need.
    """
    limit = _limit(settings) - reserved
    configs = {name: _parameters(settings.model_repository / name) for name in names}
    fixed = [
        Footprint(name, _weights(settings.model_repository / name), _overhead(config))
        for name, config in configs.items()
    ]
    chat = [
        name for name, config in configs.items() if config["backend"] == "generation" and "context_length" in config
    ]
    left = limit - _BASE - sum(footprint.total for footprint in fixed)
    budget = round(left * _CACHE_SHARE / max(1, len(chat)))
    if settings.kv_cache_gb:
        budget = round(settings.kv_cache_gb * 1e9)
    try:
        found = {name: _fit_chat(name, configs[name], settings, budget) for name in chat}
    except ValueError as error:
        raise LaunchError(f"A parameter of a chat model is not a number: {error}") from error
    footprints = [
        Footprint(
            each.name,
            each.weights,
            each.overhead,
            int(configs[each.name].get("kv_bytes_per_token", 0)),
            int(found.get(each.name, {}).get("cache_tokens", 0)),
            _whole_gigabytes(configs[each.name] | found.get(each.name, {})) if each.name in found else 0,
        )
        for each in fixed
    ]
    plan = MemoryPlan(footprints, found, limit)
    if plan.total > limit:
        lines = "\n  ".join(plan.describe())
        raise LaunchError(
            f"The models need more memory than this machine has:\n  {lines}\nServe fewer or smaller models, or set a "
            "smaller --kv-cache-gb or --precision"
        )
    return plan


def _overhead(config: Mapping[str, str]) -> int:
    return _OVERHEAD.get(config["backend"], 100 * _MB) + (_TORCH if config.get("environment") else 0)


def _whole_gigabytes(parameters: Mapping[str, str]) -> int:
    """Return the size of the KV cache of a model that has it in gigabytes, in bytes; 0 for other models."""
    return int(parameters.get("cache_size_gb", 1)) << 30 if parameters.get("cache_tokens") == "0" else 0


def _limit(settings: Settings) -> int:
    limit = memory_limit()
    return min(limit, round(settings.max_memory_gb * 1e9)) if settings.max_memory_gb else limit


def _fit_chat(name: str, config: Mapping[str, str], settings: Settings, budget: int) -> dict[str, str]:
    """Return the parameters of a chat model whose KV cache may have `budget` bytes."""
    context, per_token = int(config["context_length"]), int(config.get("kv_bytes_per_token", 0))
    if settings.context_length and settings.context_length > context:
        raise LaunchError(f"--context-length {settings.context_length:,} exceeds the {context:,} tokens of {name}")
    context = settings.context_length or context
    cache = config.get("cache_tokens", "0")
    whole: dict[str, str] = {}
    if not per_token and config.get("engine") != "llamacpp":
        tokens = 0  # the size of a token is unknown, so the cache has `cache_size_gb`
        whole = {"cache_size_gb": str(max(1, round(settings.kv_cache_gb)))} if settings.kv_cache_gb else {}
    elif cache == "auto" or settings.kv_cache_gb:
        affordable = budget // per_token if per_token else _MAX_CACHE_TOKENS
        wanted = affordable if settings.kv_cache_gb else min(max(context, _USUAL_CACHE_TOKENS), _MAX_CACHE_TOKENS)
        # With the minimum, the plan as a whole may be refused.
        tokens = max(min(wanted, affordable), min(context, _MIN_CACHE_TOKENS))
    else:
        tokens = int(cache)
    sequences = settings.max_num_seqs or config.get("max_num_seqs", "auto")
    if sequences == "auto":
        sequences = max(1, min(_MAX_SEQUENCES, (tokens or _MAX_CACHE_TOKENS) // _TOKENS_PER_SEQUENCE))
    return whole | {
        "cache_tokens": str(tokens),
        "context_length": str(min(context, tokens or context)),
        "max_num_seqs": str(sequences),
    }


def _parameters(model: Path) -> dict[str, str]:
    """Return the parameters and the `backend` of a model. Raise LaunchError if it has no valid configuration."""
    path = model / "config.pbtxt"
    try:
        config = parse_config(path)
    except FileNotFoundError:
        raise LaunchError(f"Unknown model '{model.name}': {path} does not exist; see `trident list`") from None
    except text_format.ParseError as error:
        raise LaunchError(f"{path}, line {error}") from error
    parameters = {key: str(value.string_value) for key, value in config.parameters.items()}
    return parameters | {"backend": str(config.backend)}


def _weights(model: Path) -> int:
    """Return the size of a model's files, without those of llama.cpp's libraries."""
    try:
        files = latest_version(model).rglob("*")
    except FileNotFoundError:
        return 0  # Triton will say what is missing
    return sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".so")


def networks_of(settings: Settings, names: Sequence[str]) -> list[str]:
    """Return the models of the repository that compute the networks of these models (see EncoderParameters)."""
    descriptions = [_parameters(settings.model_repository / name).get("network") for name in names]
    return [json.loads(description)["model"] for description in descriptions if description]


def write_repository(settings: Settings, plans: Sequence[MemoryPlan]) -> None:
    """Write the model repository that Triton loads, and the memory that each model needs."""
    target = settings.served_repository
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    changed = {name: values for plan in plans for name, values in plan.parameters.items()}
    sizes = {footprint.name: footprint.total for plan in plans for footprint in plan.footprints}
    networks = networks_of(settings, settings.models)
    content = {"limit": _limit(settings) - _BASE, "models": sizes, "changed": changed, "networks": networks}
    settings.footprints_file.write_text(json.dumps(content), encoding="utf-8")
    for plan in plans:
        _write_models(settings, plan, target)


def _write_models(settings: Settings, plan: MemoryPlan, target: Path) -> None:
    for footprint in plan.footprints:
        source = (settings.model_repository / footprint.name).resolve()
        if changed := plan.parameters.get(footprint.name):
            write_model(source, target / footprint.name, changed)
        else:
            (target / footprint.name).symlink_to(source)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def main() -> None:
    """Write the repository, or exit with a message if the models do not fit."""
    settings = load_settings()
    try:
        plans = [make_plan(settings, [*settings.models, *networks_of(settings, settings.models)])]
    except LaunchError as error:
        sys.exit(str(error))
    if settings.models_on_demand:
        plans += _plans_of_others(settings, plans[0].total - _BASE)
    write_repository(settings, plans)


def _plans_of_others(settings: Settings, reserved: int) -> list[MemoryPlan]:
    """Return the plans of the models that are loaded on demand, each as if no other one of them were loaded.

    `reserved` is what the models that are always loaded need.
    """
    plans = []
    for path in sorted(settings.model_repository.glob("*/config.pbtxt")):
        name = path.parent.name
        if name not in settings.models:
            try:
                parameters = _parameters(path.parent)
                if "network" in parameters:
                    raise LaunchError("its network is a model of its own")
                if "task" in parameters:
                    plans.append(make_plan(settings, [name], reserved))
            except (LaunchError, ValueError) as error:
                print(f"{name} cannot be loaded on demand: {error}", flush=True)
    return plans


if __name__ == "__main__":
    main()
