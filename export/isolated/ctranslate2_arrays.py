"""Reads the weights in a model.bin of CTranslate2 (version 6 of its format)."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_VERSION = 6

# By their number in the file.
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def read_arrays(path: Path, kind: str) -> Arrays:
    """Return the arrays of a model by their names. Raises ValueError if it is not a `kind`, or quantized."""
    with path.open("rb") as file:
        version, name, _ = _number(file, "I"), _string(file), _number(file, "I")
        if (version, name) != (_VERSION, kind):
            raise ValueError(f"{path.name} is a {name} of version {version}, not a {kind} of version {_VERSION}")
        arrays = dict(_array(file) for _ in range(_number(file, "I")))
    if any(name.endswith("weight_scale") for name in arrays):
        raise ValueError(f"{path.name} is quantized; its float16 or float32 original is needed")
    return arrays


def _array(file: BinaryIO) -> tuple[str, NDArray[Any]]:
    name = _string(file)
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    kind = _TYPES[_number(file, "B")]
    return name, np.frombuffer(file.read(_number(file, "I")), kind).reshape(shape)


def _string(file: BinaryIO) -> str:
    """Read a string that ends with a zero byte, after its length."""
    return file.read(_number(file, "H"))[:-1].decode()


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0])
