"""The logits that llama.cpp's own helper computes for a prompt with an image, all within the library of xllamacpp.

The command line is `mtmd_reference.py LIBRARY MODEL PROJECTOR OUTPUT`. It runs in a process of its own, since that
library has functions of the same names as those of the libraries that generate text.
"""

import ctypes
import sys
from ctypes import POINTER, byref, c_bool, c_char_p, c_float, c_int32, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from backends.common.llamacpp.library import ContextParams
from backends.common.llamacpp.media import mtmd

SIZE, COLOR = (100, 60), (0, 0, 255)
BEFORE, AFTER = "The first picture shows", " and its color is"


class _ContextParams(ctypes.Structure):
    _fields_ = tuple(
        entry
        for name, kind in ContextParams._fields_
        for entry in ([("moe_cache_size", c_size_t)] if name == "abort_callback" else []) + [(name, kind)]
    )


def main(library: str, model: str, projector: str, output: str) -> None:
    llama = mtmd._load_library(Path(library))
    for name, result, arguments in (
        ("llama_context_default_params", _ContextParams, ()),
        ("llama_init_from_model", c_void_p, (c_void_p, _ContextParams)),
        ("llama_model_get_vocab", c_void_p, (c_void_p,)),
        ("llama_vocab_n_tokens", c_int32, (c_void_p,)),
        ("llama_get_logits_ith", POINTER(c_float), (c_void_p, c_int32)),
        (
            "mtmd_helper_eval_chunks",
            c_int32,
            (c_void_p, c_void_p, c_void_p, c_int32, c_int32, c_int32, c_bool, POINTER(c_int32)),
        ),
    ):
        getattr(llama, name).restype, getattr(llama, name).argtypes = result, arguments
    loaded = llama.llama_model_load_from_file(model.encode(), llama.llama_model_default_params())
    settings = llama.mtmd_context_params_default()
    settings.use_gpu = settings.warmup = False
    media = llama.mtmd_init_from_file(projector.encode(), loaded, settings)
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = 512
    context = llama.llama_init_from_model(loaded, parameters)
    text = f"{BEFORE}<__media__>{AFTER}".encode()
    bitmap = llama.mtmd_bitmap_init(*SIZE, bytes(COLOR) * (SIZE[0] * SIZE[1]))
    chunks, end = llama.mtmd_input_chunks_init(), c_int32()
    given = mtmd._InputText(c_char_p(text), len(text), False, True)
    assert llama.mtmd_tokenize(media, chunks, byref(given), (c_void_p * 1)(bitmap), 1) == 0
    assert llama.mtmd_helper_eval_chunks(media, context, chunks, 0, 0, 512, True, byref(end)) == 0
    size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(loaded))
    np.save(output, np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (size,)))


if __name__ == "__main__":
    main(*sys.argv[1:])
