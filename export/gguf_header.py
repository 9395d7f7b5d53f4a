"""Reads the header of a GGUF file: its metadata and the list of its tensors.

The file may come from anywhere, so every size is checked against the size of the file before anything is read.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from export.fetch import ExportError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_TENSORS, _MAX_KEYS, _MAX_DEPTH, _MAX_DIMENSIONS = 1_000_000, 100_000, 4, 4
_MAX_ELEMENTS = 20_000_000
"""How many numbers and strings all arrays have together. The largest vocabularies have 262,000 tokens."""

PROJECTOR_ARCHITECTURE = "clip"
"""The architecture of files that encode images and audio for a chat model."""

# The types of projectors that accept far larger images than a CPU can compute in time, and of those whose embeddings
# attend to each other, so that a batch must hold all of them.
_LARGE = [
    "qwen2vl_merger",
    "qwen2.5vl_merger",
    "qwen3vl_merger",
    "ling3vl",
    "kimik25",
    "muse_glimmer",
    "youtuvl",
    "glm4v",
    "hunyuanvl",
]
_IMAGE_TOKENS = dict.fromkeys(_LARGE, 1_024) | dict.fromkeys(("gemma4v", "gemma4uv", "deepseek4v"), 512)

_CLASSIFIER = ("cls.weight", "cls.output.weight")

_MAX_INTEGER = 1 << 31
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class InvalidGGUF(Exception):
    """A file is not a usable GGUF file. The message says why."""


class IncompleteGGUF(InvalidGGUF):
    """A file ends within its header."""


@dataclass(frozen=True)
class GGUFHeader:
    """The header of a GGUF file."""

    metadata: Mapping[str, Any]
    num_parameters: int
    file_type: str
    """The quantization of most tensors, such as `Q4_K_M`."""
    has_classifier: bool = False
    """Whether the model has a classification head, as rerankers do."""

    @property
    def architecture(self) -> str:
        """The model's architecture, such as `llama`."""
        return str(self.metadata["general.architecture"])

    def integers(self, key: str, default: int) -> list[int]:
        """Return the values of a key of the architecture that has one integer, or one for each layer."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        values = value if isinstance(value, list) else [value]
        if not all(type(each) is int and 0 <= each < _MAX_INTEGER for each in values) or not values:
            raise InvalidGGUF(f"the metadata has an invalid '{self.architecture}.{key}'")
        return values

    def integer(self, key: str, default: int) -> int:
        """Return the value of a key of the architecture, such as `context_length`."""
        return max(self.integers(key, default))

    @property
    def kv_bytes_per_token(self) -> int:
        """The size of a token's keys and values in all layers, in float16; 0 for a recurrent model."""
        heads, layers = self.integer("attention.head_count", 1), self.integer("block_count", 0)
        kv_heads = self.integers("attention.head_count_kv", heads)
        size = self.integer("embedding_length", 0) // max(1, heads)
        key, value = (self.integer(f"attention.{name}_length", size) for name in ("key", "value"))
        return 2 * (key + value) * (sum(kv_heads) if len(kv_heads) > 1 else layers * kv_heads[0])


def read_header(path: Path) -> GGUFHeader:
    """Return the header of a GGUF file. Raises InvalidGGUF if the file is damaged or not supported, and OSError."""
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise InvalidGGUF("the file is too short to be a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(content).header()
            except (struct.error, IndexError) as error:
                raise InvalidGGUF("the file ends within its header: it is truncated or damaged") from error


def parse_header(beginning: bytes, size: int) -> GGUFHeader:
    """Return the header of a GGUF file of `size` bytes, of which the beginning is given.

    Raises IncompleteGGUF if the header is longer, and InvalidGGUF.
    """
    try:
        return _Reader(beginning, size).header()
    except (struct.error, IndexError) as error:
        raise InvalidGGUF("the header is damaged") from error


def require_header(path: Path) -> GGUFHeader:
    """Return the header of a user's GGUF file. Raises ExportError if the file is not usable."""
    try:
        return read_header(path)
    except FileNotFoundError:
        raise ExportError(f"{path} was not found") from None
    except InvalidGGUF as error:
        raise ExportError(f"{path}: {error}") from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error


class _Tensor(NamedTuple):
    """A tensor: its offset in the data and its size in bytes, and its number of values."""

    name: str
    offset: int
    size: int
    num_values: int


class _Reader:
    def __init__(self, content: mmap.mmap | bytes, size: int = 0):
        self._content, self._size, self._at = content, size or len(content), 0
        self._num_elements = 0

    def header(self) -> GGUFHeader:
        if self._take(4) != _MAGIC:
            raise InvalidGGUF("the file does not begin with 'GGUF': it is not a GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise InvalidGGUF(f"GGUF version {version} is not supported (supported: 2 and 3)")
        num_tensors, num_keys = self._number("<Q"), self._number("<Q")
        # A tensor takes at least 24 bytes of the header, and a key at least 13.
        if num_tensors > min(_MAX_TENSORS, self._size // 24) or num_keys > min(_MAX_KEYS, self._size // 13):
            raise InvalidGGUF(f"the header claims {num_tensors:,} tensors and {num_keys:,} keys: the file is damaged")
        metadata = dict(self._pair() for _ in range(num_keys))
        if not isinstance(metadata.get("general.architecture"), str):
            raise InvalidGGUF("the metadata has no 'general.architecture'")
        if metadata.get("split.count", 1) not in (0, 1):
            raise InvalidGGUF("the model is split into several files; merge them with llama-gguf-split first")
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 65_536:
            raise InvalidGGUF(f"the alignment {alignment!r} is not valid")
        tensors = [self._tensor() for _ in range(num_tensors)]
        count = sum(tensor.num_values for tensor in tensors)
        has_classifier = any(tensor.name in _CLASSIFIER for tensor in tensors)
        header = GGUFHeader(metadata, count, _file_type(metadata), has_classifier)
        # These raise InvalidGGUF if a value that is needed is invalid.
        _, _ = header.kv_bytes_per_token, header.integer("context_length", 0)
        data = -(-self._at // alignment) * alignment
        end = max((data + tensor.offset + tensor.size for tensor in tensors), default=0)
        if end > self._size:
            raise InvalidGGUF(f"the file is truncated: it has {self._size:,} of {end:,} bytes")
        return header

    def _pair(self) -> tuple[str, Any]:
        key = self._string()
        return key, self._value(self._number("<I"))

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth >= _MAX_DEPTH:
            raise InvalidGGUF(f"the metadata has a value of unknown type {kind}")
        element, length = self._number("<I"), self._number("<Q")
        self._num_elements += length
        if length > self._size - self._at or self._num_elements > _MAX_ELEMENTS:
            raise InvalidGGUF(f"the metadata claims an array of {length:,} values: the file is damaged")
        if element in _NUMBERS:
            form = _NUMBERS[element][1]
            return list(struct.unpack(f"<{length}{form}", self._take(length * struct.calcsize(f"<{form}"))))
        return [self._value(element, depth + 1) for _ in range(length)]

    def _tensor(self) -> _Tensor:
        name = self._string()
        dimensions = self._number("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise InvalidGGUF(f"the tensor '{name[:80]}' has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset, count = self._number("<I"), self._number("<Q"), prod(shape)
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise InvalidGGUF(f"the tensor '{name[:80]}' has the unknown type {kind}") from None
        return _Tensor(name, offset, count // block * size, count)

    def _string(self) -> str:
        return str(self._take(self._number("<Q")), "utf-8", "replace")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, length: int) -> bytes:
        if length > len(self._content) - self._at:
            raise IncompleteGGUF("the file ends within its header: it is truncated or damaged")
        self._at += length
        return self._content[self._at - length : self._at]


def projector_capabilities(header: GGUFHeader) -> list[str]:
    """Return what a projector accepts: `vision`, `audio` or both. Raises InvalidGGUF if the file is not a projector."""
    if header.architecture != PROJECTOR_ARCHITECTURE:
        raise InvalidGGUF(f"the file is not a projector, but a model of the architecture {header.architecture}")
    keys = {"vision": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}
    found = [name for name, key in keys.items() if header.metadata.get(key) is True]
    if not found:
        raise InvalidGGUF("the projector accepts neither images nor audio")
    return found


def projector_image_tokens(header: GGUFHeader) -> int:
    """Return the maximum number of tokens of an image; -1 stands for the projector's own limit."""
    keys = ("clip.vision.projector_type", "clip.projector_type")
    kind = next((header.metadata[key] for key in keys if key in header.metadata), None)
    return _IMAGE_TOKENS.get(kind, -1) if isinstance(kind, str) else -1


def require_adapter(header: GGUFHeader) -> None:
    """Raise InvalidGGUF unless the file is a LoRA adapter."""
    kind = header.metadata.get("general.type")
    if kind != "adapter" or header.metadata.get("adapter.type") != "lora":
        raise InvalidGGUF(f"the file is not a LoRA adapter, but has the type {kind or 'model'}")
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise InvalidGGUF("adapters that apply only after certain tokens (aLoRA) are not supported")


def _file_type(metadata: Mapping[str, Any]) -> str:
    try:
        name: str = LlamaFileType(metadata["general.file_type"]).name
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError):
        return "unknown"
