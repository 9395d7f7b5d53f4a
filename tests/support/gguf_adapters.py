"""LoRA adapters for GGUF files, and the same models with the adapter merged into their weights."""

from pathlib import Path

import gguf
import numpy as np

from tests.support.gguf_files import copy_gguf

_TENSOR, _RANK, _ALPHA = "blk.20.ffn_down.weight", 4, 8.0


def _weights(source: Path) -> np.ndarray:
    [tensor] = [tensor for tensor in gguf.GGUFReader(str(source)).tensors if tensor.name == _TENSOR]
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def _factors(source: Path, seed: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of an adapter whose product is `strength` times as large as the weights."""
    weights, random = _weights(source), np.random.default_rng(seed)
    first = random.standard_normal((_RANK, weights.shape[1])).astype(np.float32)
    second = random.standard_normal((weights.shape[0], _RANK)).astype(np.float32)
    size = np.linalg.norm(second @ first) * _ALPHA / _RANK
    return first, second * (strength * np.linalg.norm(weights) / size).astype(np.float32)


def write_adapter(source: Path, path: Path, seed: int, strength: float = 6.0, architecture: str = "llama") -> Path:
    """Write a random LoRA adapter for a model."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", _ALPHA)
    for name, factor in zip(("lora_a", "lora_b"), _factors(source, seed, strength), strict=True):
        writer.add_tensor(f"{_TENSOR}.{name}", factor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_merged(source: Path, path: Path, seed: int, strength: float = 6.0) -> Path:
    """Write the model with the same adapter merged into its weights."""
    first, second = _factors(source, seed, strength)
    merged = (_weights(source) + _ALPHA / _RANK * second @ first).astype(np.float32)
    return copy_gguf(source, path, "llama", tensors={_TENSOR: merged})
