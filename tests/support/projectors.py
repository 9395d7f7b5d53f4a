"""Projector files, computed instead of trained: they turn a colored picture into the embeddings of the color's name.

So a real language model answers questions about pictures and sounds, and each part of the path must be right for it.
"""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

from tests.support.gguf_files import copy_gguf, gguf_file

_WIDTH, _HIDDEN = 8, 32
_BIAS = 10.0
"""GELU leaves numbers above this unchanged."""

# Red, green, blue and white, normalized to -1 and 1, and the constant 1.
_COLORS = np.array([[1, -1, -1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]], np.float32)
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def _embeddings_of(model: Path, words: Sequence[str]) -> np.ndarray:
    reader = gguf.GGUFReader(str(model))
    field = reader.fields["tokenizer.ggml.tokens"]
    tokens = [bytes(field.parts[index]).decode() for index in field.data]
    [tensor] = [tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    rows = gguf.dequantize(tensor.data, tensor.tensor_type)
    return np.stack([rows[tokens.index(f"Ġ{word}")] for word in words])


class _Writer(gguf.GGUFWriter):
    """A projector file whose encoder passes its input through: all its layers add zero."""

    def __init__(self, path: Path):
        super().__init__(str(path), "clip")
        self.add_type("mmproj")

    def add_encoder(self, kind: str, prefix: str, projector: str, numbers: dict[str, int]) -> None:
        self.add_bool(f"clip.has_{kind}_encoder", True)
        self.add_string(f"clip.{kind}.projector_type", projector)
        sizes = {"embedding_length": _WIDTH, "feed_forward_length": 16, "block_count": 1, "attention.head_count": 1}
        for name, number in (sizes | numbers).items():
            self.add_uint32(f"clip.{kind}.{name}", number)
        self.add_float32(f"clip.{kind}.attention.layer_norm_epsilon", 1e-6)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            self.add(f"{prefix}.blk.0.{name}.weight", np.zeros((_WIDTH, _WIDTH)))
            if name != "attn_k":
                self.add(f"{prefix}.blk.0.{name}.bias", np.zeros(_WIDTH))
        self.add(f"{prefix}.blk.0.ffn_up.weight", np.zeros((16, _WIDTH)))
        self.add(f"{prefix}.blk.0.ffn_down.weight", np.zeros((_WIDTH, 16)))
        for name in ("ln1", "ln2"):
            self.add(f"{prefix}.blk.0.{name}.weight", np.ones(_WIDTH))
            self.add(f"{prefix}.blk.0.{name}.bias", np.zeros(_WIDTH))

    def add_vision(self, projector: str, width: int, size: int, frames: int = 1, **numbers: int) -> None:
        """Add an encoder whose output has a patch's mean color, and 1, in its first four dimensions."""
        sizes = {"image_size": size, "patch_size": 16, "projection_dim": width}
        self.add_encoder("vision", "v", projector, sizes | numbers)
        self.add_bool("clip.use_gelu", True)
        for name in ("image_mean", "image_std"):
            self.add_array(f"clip.vision.{name}", [0.5] * 3)
        patches = np.zeros((_WIDTH, 3, 16, 16))
        for color in range(3):
            patches[color, color] = 1 / 256 / frames
        self.add("v.patch_embd.weight", patches)
        if frames == 2:
            self.add("v.patch_embd.weight.1", patches)

    def add(self, name: str, values: np.ndarray, kind: type = np.float32) -> None:
        self.add_tensor(name, np.ascontiguousarray(values, kind))

    def finish(self) -> None:
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_tensors_to_file()
        self.close()


def _through_gelu(matrix: np.ndarray, repeats: int) -> tuple[np.ndarray, ...]:
    """Return the weights and biases of two layers with GELU between them, that together multiply by `matrix`.

    Their input consists of `repeats` vectors, of which they take the mean.
    """
    rows = matrix.shape[1]
    first, second = np.zeros((_HIDDEN, repeats * _WIDTH)), np.zeros((len(matrix), _HIDDEN))
    for index in range(rows):
        first[index, index::_WIDTH] = 1 / repeats
        second[:, index] = matrix[:, index]
    return first, np.full(_HIDDEN, _BIAS), second, -_BIAS * second.sum(axis=1)


def write_color_projector(path: Path, *, with_audio: bool = False) -> Path:
    """Write a projector for SmolLM2 of the type Janus-Pro: one of four colors becomes four times its name.

    With `with_audio`, it accepts audio too, like Ultravox: low noise becomes `low`, and high noise becomes `high`.
    """
    words = _embeddings_of(gguf_file("smollm2-135m"), list(COLORS))
    writer = _Writer(path)
    writer.add_vision("janus_pro", words.shape[1], 32)
    bias = np.zeros(_WIDTH)
    bias[3] = 1
    writer.add("v.patch_embd.bias", bias)
    writer.add("v.position_embd.weight", np.zeros((4, _WIDTH)))
    for name, values in zip(("0.weight", "0.bias", "1.weight", "1.bias"), _color_layers(words, 1), strict=True):
        writer.add(f"mm.{name}", values)
    if with_audio:
        _add_audio(writer)
    writer.finish()
    return path


def _color_layers(words: np.ndarray, repeats: int) -> tuple[np.ndarray, ...]:
    return _through_gelu(np.linalg.solve(_COLORS, words).T, repeats)


def _add_audio(writer: _Writer) -> None:
    low, high = _embeddings_of(gguf_file("smollm2-135m"), ["low", "high"])
    sizes = {"num_mel_bins": 80, "projector.stack_factor": 4, "projection_dim": len(low)}
    writer.add_encoder("audio", "a", "ultravox", sizes)
    writer.add("a.position_embd.weight", np.zeros((1_500, _WIDTH)))
    first, second = np.zeros((_WIDTH, 80, 3)), np.zeros((_WIDTH, _WIDTH, 3))
    first[0, 5:35, 1], first[1, 55:75, 1] = 1 / 30, 1 / 20
    for index in range(3):
        second[index, index, 1] = 1
    writer.add("a.conv1d.1.weight", first, np.float16)
    writer.add("a.conv1d.2.weight", second, np.float16)
    bias = np.zeros((_WIDTH, 1))
    bias[:3] = 4
    writer.add("a.conv1d.1.bias", bias)
    writer.add("a.conv1d.2.bias", np.zeros((_WIDTH, 1)))
    writer.add("mm.a.norm_pre.weight", np.ones(4 * _WIDTH))
    writer.add("mm.a.norm_mid.weight", np.ones(4))
    # The first four outputs are multiplied by SiLU of the others, which is almost 0 for silence.
    gated = np.zeros((8, 4 * _WIDTH))
    gated[0, 0::_WIDTH], gated[0, 1::_WIDTH] = 1, -1
    gated[1, 2::_WIDTH] = 0.2
    for row in range(4, 8):
        gated[row, 0::_WIDTH], gated[row, 1::_WIDTH], gated[row, 2::_WIDTH] = 20, 20, -36
    writer.add("mm.a.mlp.1.weight", gated)
    out = np.zeros((len(low), 4))
    out[:, 0], out[:, 1] = (low - high) / 2, (low + high) / 2
    writer.add("mm.a.mlp.2.weight", out)


def write_bidirectional_projector(path: Path) -> Path:
    """Write a projector for SmolLM2 of the type Gemma 3, whose embeddings attend to each other in both directions."""
    words = _embeddings_of(gguf_file("smollm2-135m"), list(COLORS))
    writer = _Writer(path)
    writer.add_vision("gemma3", words.shape[1], 64)
    writer.add_uint32("clip.vision.projector.scale_factor", 2)
    bias = np.zeros(_WIDTH)
    bias[3] = 1
    writer.add("v.patch_embd.bias", bias)
    writer.add("v.position_embd.weight", np.zeros((16, _WIDTH)))
    writer.add("mm.soft_emb_norm.weight", np.full(_WIDTH, 0.5**0.5))  # the mean square of the four values is 1/2
    projection = np.zeros((_WIDTH, words.shape[1]))
    projection[:4] = np.linalg.solve(_COLORS, words)
    writer.add("mm.input_projection.weight", projection)
    writer.finish()
    return path


def write_grid_projector(path: Path) -> Path:
    """Write a projector of the type Qwen2-VL, with two-dimensional positions, for the model of `write_grid_model`.

    The rows and columns of an image depend on its size.
    """
    words = _embeddings_of(gguf_file("qwen2.5-coder-0.5b"), list(COLORS))
    writer = _Writer(path)
    writer.add_vision("qwen2vl_merger", words.shape[1], 64, frames=2)
    first, biases, second, last = _color_layers(words, 4)
    # This type has no bias of patches, so the layers themselves add the constant.
    first[3] = 0
    biases[3] += 1
    for name, values in zip(("0.weight", "0.bias", "2.weight", "2.bias"), (first, biases, second, last), strict=True):
        writer.add(f"mm.{name}", values)
    writer.add("v.blk.0.attn_k.bias", np.zeros(_WIDTH))
    writer.finish()
    return path


def write_grid_model(path: Path) -> Path:
    """Write Qwen2.5-Coder as a model of the architecture Qwen2-VL, which computes texts in the same way."""
    sections = {"qwen2vl.rope.dimension_sections": [16, 24, 24, 0]}
    return copy_gguf(gguf_file("qwen2.5-coder-0.5b"), path, "qwen2vl", sections)
