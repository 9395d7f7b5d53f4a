"""Quantizes a GGUF file with llama.cpp: `python -m backends.common.llamacpp.quantize LIBRARIES SOURCE TARGET TYPE`.

TYPE is the number of a file type (LlamaFileType).
"""

import ctypes
import sys
from pathlib import Path

from backends.common.llamacpp.library import LibraryError, load_library

_PARAMS_BYTES = 1024


class _Params(ctypes.Structure):
    """The beginning of llama_model_quantize_params, and room for the rest."""

    _fields_ = (("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("rest", ctypes.c_byte * _PARAMS_BYTES))


def quantize(libraries: Path, source: Path, target: Path, file_type: int) -> None:
    """Write a GGUF file with quantized weights. Raises LibraryError."""
    llama = load_library(libraries)
    llama.llama_model_quantize_default_params.restype = _Params
    llama.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    llama.llama_model_quantize.restype = ctypes.c_uint32
    params = llama.llama_model_quantize_default_params()
    params.ftype = file_type
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise LibraryError(f"llama.cpp cannot quantize {source.name}")


if __name__ == "__main__":
    quantize(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
