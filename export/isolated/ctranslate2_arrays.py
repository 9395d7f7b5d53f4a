"""Reads the weights from CTranslate2's model.bin (format version 6)."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_VERSION = 6

# The index in this tuple is the type code in the file.
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def read_arrays(path: Path, kind: str) -> Arrays:
    """Return a model's arrays by name. Raise ValueError unless it is an unquantized `kind` in format version 6."""
    with path.open("rb") as file:
        version, name, _ = _read_number(file, "I"), _read_string(file), _read_number(file, "I")
        if (version, name) != (_VERSION, kind):
            raise ValueError(f"{path.name} is a {name}, version {version}; expected a {kind}, version {_VERSION}")
        arrays = dict(_read_array(file) for _ in range(_read_number(file, "I")))
    if any(name.endswith("weight_scale") for name in arrays):
        raise ValueError(f"{path.name} is quantized; the float16 or float32 original is required")
    return arrays


def _read_array(file: BinaryIO) -> tuple[str, NDArray[Any]]:
    name = _read_string(file)
    shape = [_read_number(file, "I") for _ in range(_read_number(file, "B"))]
    kind = _TYPES[_read_number(file, "B")]
    return name, np.frombuffer(file.read(_read_number(file, "I")), kind).reshape(shape)


def _read_string(file: BinaryIO) -> str:
    """Read a zero-terminated string, which follows its length: two bytes, which count the zero."""
    return file.read(_read_number(file, "H"))[:-1].decode()


def _read_number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0])
