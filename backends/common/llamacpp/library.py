"""llama.cpp's C API, through ctypes.

The structures below are those of the release that `export/llamacpp.py` pins. Another release may lay them out
differently, so `load_library` compares the version and the default parameters before anything else is called.
"""

import ctypes
import logging
import os
import re
from collections import deque
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

VERSION = "0.5.0"
"""The release of llama.cpp whose structures are declared here."""

_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_WARNING, _ERROR = 3, 4

GGUF = "model.gguf"
"""The file of a model that runs on llama.cpp, in its version folder."""

LIBRARIES = "llama.cpp"
"""The folder with llama.cpp's libraries, in the same folder."""

PROJECTOR = "mmproj.gguf"
"""The projector of a model that accepts images or audio, in the same folder."""

ADAPTERS = "adapters"
"""The folder with the model's LoRA adapters, in the same folder."""

MAX_SEQUENCES = 256
"""The maximum number of sequences in a context."""


class ModelParams(Structure):
    """llama_model_params."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(Structure):
    """llama_context_params."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int),
        ("rope_scaling_type", c_int),
        ("pooling_type", c_int),
        ("attention_type", c_int),
        ("flash_attn_type", c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(Structure):
    """llama_batch."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class ThreadPoolParams(Structure):
    """ggml_threadpool_params."""

    _fields_ = (
        ("cpumask", c_bool * 512),
        ("n_threads", c_int),
        ("prio", c_int),
        ("poll", c_uint32),
        ("strict_cpu", c_bool),
        ("paused", c_bool),
    )


class TokenDataArray(Structure):
    """llama_token_data_array. `data` points to TOKEN_DATA records."""

    _fields_ = (("data", c_void_p), ("size", c_size_t), ("selected", ctypes.c_int64), ("sorted", c_bool))


TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""

_P = c_void_p  # models, contexts, vocabularies, samplers and memories are opaque pointers
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_version": (c_char_p, ()),
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (_LOG, c_void_p)),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (_P, (c_char_p, ModelParams)),
    "llama_model_free": (None, (_P,)),
    "llama_model_get_vocab": (_P, (_P,)),
    "llama_model_is_recurrent": (c_bool, (_P,)),
    "llama_model_n_swa": (c_int32, (_P,)),
    "llama_model_is_hybrid": (c_bool, (_P,)),
    "llama_model_has_encoder": (c_bool, (_P,)),
    "llama_model_n_embd_inp": (c_int32, (_P,)),
    "llama_init_from_model": (_P, (_P, ContextParams)),
    "llama_free": (None, (_P,)),
    "llama_n_ctx": (c_uint32, (_P,)),
    "llama_get_memory": (_P, (_P,)),
    "llama_set_n_threads": (None, (_P, c_int32, c_int32)),
    "llama_adapter_lora_init": (_P, (_P, c_char_p)),
    "llama_set_adapters_lora": (c_int32, (_P, POINTER(_P), c_size_t, POINTER(c_float))),
    "llama_set_causal_attn": (None, (_P, c_bool)),
    "llama_attach_threadpool": (None, (_P, _P, _P)),
    "llama_batch_init": (Batch, (c_int32, c_int32, c_int32)),
    "llama_decode": (c_int32, (_P, Batch)),
    "llama_get_embeddings_seq": (POINTER(c_float), (_P, c_int32)),
    "llama_model_n_embd_out": (c_int32, (_P,)),
    "llama_model_n_cls_out": (c_uint32, (_P,)),
    "llama_model_meta_val_str": (c_int32, (_P, c_char_p, c_char_p, c_size_t)),
    "llama_get_logits": (POINTER(c_float), (_P,)),
    "llama_memory_clear": (None, (_P, c_bool)),
    "llama_memory_seq_rm": (c_bool, (_P, c_int32, c_int32, c_int32)),
    "llama_memory_seq_cp": (None, (_P, c_int32, c_int32, c_int32, c_int32)),
    "llama_state_seq_get_size": (c_size_t, (_P, c_int32)),
    "llama_state_seq_get_data": (c_size_t, (_P, c_void_p, c_size_t, c_int32)),
    "llama_state_seq_set_data": (c_size_t, (_P, c_void_p, c_size_t, c_int32)),
    "llama_vocab_type": (c_int, (_P,)),
    "llama_vocab_n_tokens": (c_int32, (_P,)),
    "llama_vocab_is_eog": (c_bool, (_P, c_int32)),
    "llama_vocab_is_control": (c_bool, (_P, c_int32)),
    "llama_vocab_bos": (c_int32, (_P,)),
    "llama_vocab_eos": (c_int32, (_P,)),
    "llama_vocab_sep": (c_int32, (_P,)),
    "llama_vocab_get_add_bos": (c_bool, (_P,)),
    "llama_vocab_get_add_eos": (c_bool, (_P,)),
    "llama_vocab_get_add_sep": (c_bool, (_P,)),
    "llama_tokenize": (c_int32, (_P, c_char_p, c_int32, c_void_p, c_int32, c_bool, c_bool)),
    "llama_token_to_piece": (c_int32, (_P, c_int32, c_char_p, c_int32, c_int32, c_bool)),
    "llama_sampler_init_grammar": (_P, (_P, c_char_p, c_char_p)),
    "llama_sampler_apply": (None, (_P, POINTER(TokenDataArray))),
    "llama_sampler_accept": (None, (_P, c_int32)),
    "llama_sampler_free": (None, (_P,)),
}


class LibraryError(Exception):
    """llama.cpp's libraries cannot be used. The message says why."""


@cache
def load_library(folder: Path) -> Any:
    """Load llama.cpp from `folder`, with the variant that suits this CPU, and return its library.

    The functions have llama.cpp's names. Raises LibraryError if a library is missing, or is not the release that this
    module declares.
    """
    os.environ["GGML_NO_BACKTRACE"] = "1"  # otherwise, a failed assertion starts a debugger
    try:
        # Libraries for GPUs have the name of their device before the version.
        ggml, llama = (
            ctypes.CDLL(str(next(folder.glob(f"lib{name}*.v{VERSION}.so"))), ctypes.RTLD_GLOBAL)
            for name in ("ggml", "llama")
        )
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(llama, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError, StopIteration) as error:
        raise LibraryError(f"{folder} does not have the libraries of llama.cpp {VERSION}: {error}") from error
    _check_layout(llama)
    llama.llama_log_set(_LOG_CALLBACK, None)
    ggml.ggml_backend_load_all_from_path.argtypes = (c_char_p,)
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    llama.llama_backend_init()
    return llama


def load_gpu(folder: Path) -> None:
    """Load the library for GPUs in `folder`, after `load_library`. Raises LibraryError if there is no GPU."""
    ggml = ctypes.CDLL(str(next(folder.glob(f"libggml*.v{VERSION}.so"))))
    ggml.ggml_backend_load.restype, ggml.ggml_backend_load.argtypes = _P, (c_char_p,)
    ggml.ggml_backend_reg_dev_count.restype, ggml.ggml_backend_reg_dev_count.argtypes = c_size_t, (_P,)
    for library in (folder / "gpu").iterdir():
        found = ggml.ggml_backend_load(str(library).encode())
        if not found:
            reason = f": {_errors[-1]}" if _errors else ""
            raise LibraryError(f"llama.cpp cannot load {library.name}; is the GPU's driver installed?{reason}")
        if not ggml.ggml_backend_reg_dev_count(found):
            raise LibraryError(f"llama.cpp found no GPU with {library.name}; is the GPU's driver installed?")


def _check_layout(llama: Any) -> None:
    version = llama.llama_version().decode()
    model, context = llama.llama_model_default_params(), llama.llama_context_default_params()
    defaults = [context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max, context.n_threads]
    defaults += [context.type_k, context.type_v, context.rope_scaling_type, context.pooling_type, context.defrag_thold]
    flags = [context.embeddings, context.offload_kqv, context.no_perf, context.op_offload, context.kv_unified]
    expected = [512, 2048, 512, 1, 4, 1, 1, -1, -1, -1.0, False, True, True, True, False]
    model_defaults = [model.split_mode, model.vocab_only, model.use_extra_bufts, model.no_alloc, model.main_gpu]
    if not version.startswith(VERSION) or defaults + flags != expected or model_defaults != [1, False, True, False, 0]:
        raise LibraryError(f"The installed llama.cpp {version} is not the supported release {VERSION}")


_errors: deque[str] = deque(maxlen=2)


def _log_line(level: int, text: bytes, _: Any) -> None:
    if level in (_WARNING, _ERROR) and (line := text.decode(errors="replace").strip()):
        if level == _ERROR:
            _errors.append(line[:300])
        log.log(logging.ERROR if level == _ERROR else logging.WARNING, "llama.cpp: %s", line[:300])


_LOG_CALLBACK = _LOG(_log_line)


def cpu_library() -> Path:
    """Return the file of the CPU variant that `load_library` has loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    found = re.search(r"\S+/libggml-cpu-[^/\s]+\.so", maps)
    if not found:
        raise LibraryError("llama.cpp has no variant for this CPU")
    return Path(found[0])


def attach_threads(llama: Any, context: Any, threads: int) -> None:
    """Give a context `threads` threads that sleep while they wait.

    By default, the threads spin, which costs far more than it saves when other processes use the same cores.
    """
    library = ctypes.CDLL(str(cpu_library()))
    library.ggml_threadpool_new.restype, library.ggml_threadpool_new.argtypes = _P, (POINTER(ThreadPoolParams),)
    params = ThreadPoolParams(n_threads=threads, prio=0, poll=0, strict_cpu=False, paused=False)
    pool = library.ggml_threadpool_new(ctypes.byref(params))
    if not pool:
        raise LibraryError("llama.cpp could not start its threads")
    llama.llama_attach_threadpool(context, pool, pool)


def load_model(llama: Any, path: Path, *, vocabulary_only: bool = False, gpu_layers: int = 0) -> Any:
    """Load a GGUF file and return the model, with or without its weights. Raises LibraryError."""
    params = llama.llama_model_default_params()
    params.vocab_only, params.n_gpu_layers = vocabulary_only, gpu_layers
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        # The last error only names the file; the one before it has the reason.
        reason = _errors[0].rpartition("error loading model: ")[2] if _errors else "unknown reason"
        raise LibraryError(f"llama.cpp cannot load {path.name}: {reason}")
    return model
