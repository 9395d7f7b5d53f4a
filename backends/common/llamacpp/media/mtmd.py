"""llama.cpp's multimodal library, through ctypes: it turns images and audio into embeddings for a chat model.

The library comes with the Python package xllamacpp, which also contains a llama.cpp of its own, with the same names as
those of the libraries that generate text. So only a process of its own may load it (process.py). The structures are
those of the release that `export/llamacpp.py` pins.
"""

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.common.llamacpp.library import ModelParams
from backends.common.llamacpp.media.messages import Audio, Chunk, Image

log = logging.getLogger(__name__)

VERSION = "0.6.0-dev"
"""The release of llama.cpp whose structures are declared here."""

_TEXT, _AUDIO = 0, 2
"""Values of mtmd_input_chunk_type."""

_NO_MAPPING = 0
"""A value of llama_load_mode, which `no_alloc` requires."""

_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_ERROR = 4


class _ProjectorParams(Structure):
    """mtmd_context_params."""

    _fields_ = (
        ("use_gpu", c_bool),
        ("device", c_void_p),
        ("print_timings", c_bool),
        ("n_threads", c_int),
        ("image_marker", c_char_p),
        ("media_marker", c_char_p),
        ("flash_attn_type", c_int),
        ("warmup", c_bool),
        ("image_min_tokens", c_int),
        ("image_max_tokens", c_int),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("batch_max_tokens", c_int32),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
    )


class _InputText(Structure):
    """mtmd_input_text."""

    _fields_ = (("text", c_char_p), ("length", c_size_t), ("add_special", c_bool), ("parse_special", c_bool))


class _Position(Structure):
    """mtmd_decoder_pos."""

    _fields_ = (("t", c_uint32), ("x", c_uint32), ("y", c_uint32), ("z", c_uint32))


_P = c_void_p
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_version": (c_char_p, ()),
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (ModelParams, ()),
    "llama_model_load_from_file": (_P, (c_char_p, ModelParams)),
    "llama_model_n_embd_inp": (c_int32, (_P,)),
    "mtmd_helper_log_set": (None, (_LOG, c_void_p)),
    "llama_log_set": (None, (_LOG, c_void_p)),
    "mtmd_default_marker": (c_char_p, ()),
    "mtmd_context_params_default": (_ProjectorParams, ()),
    "mtmd_init_from_file": (_P, (c_char_p, _P, _ProjectorParams)),
    "mtmd_support_vision": (c_bool, (_P,)),
    "mtmd_support_audio": (c_bool, (_P,)),
    "mtmd_get_audio_sample_rate": (c_int, (_P,)),
    "mtmd_decode_use_mrope": (c_bool, (_P,)),
    "mtmd_decode_use_non_causal": (c_bool, (_P, _P)),
    "mtmd_bitmap_init": (_P, (c_uint32, c_uint32, c_void_p)),
    "mtmd_bitmap_init_from_audio": (_P, (c_size_t, c_void_p)),
    "mtmd_bitmap_free": (None, (_P,)),
    "mtmd_input_chunks_init": (_P, ()),
    "mtmd_input_chunks_size": (c_size_t, (_P,)),
    "mtmd_input_chunks_get": (_P, (_P, c_size_t)),
    "mtmd_input_chunks_free": (None, (_P,)),
    "mtmd_tokenize": (c_int32, (_P, _P, POINTER(_InputText), POINTER(_P), c_size_t)),
    "mtmd_input_chunk_get_type": (c_int, (_P,)),
    "mtmd_input_chunk_get_tokens_text": (POINTER(c_int32), (_P, POINTER(c_size_t))),
    "mtmd_input_chunk_get_tokens_image": (_P, (_P,)),
    "mtmd_input_chunk_get_n_tokens": (c_size_t, (_P,)),
    "mtmd_input_chunk_get_n_pos": (c_int32, (_P,)),
    "mtmd_image_tokens_get_decoder_pos": (_Position, (_P, c_int32, c_size_t)),
    "mtmd_encode_chunk": (c_int32, (_P, _P)),
    "mtmd_get_output_embd": (POINTER(c_float), (_P,)),
}


class ProjectorError(Exception):
    """The library or the projector file cannot be used. The message says why."""


class InvalidMedia(Exception):
    """An image or an audio file that the projector rejects. The message says why."""


class Projector:
    """A projector file, with the vocabulary of its chat model.

    `max_tokens` limits the embeddings of an image, for models that accept images of any size. Raises ProjectorError.
    """

    def __init__(self, library: Path, model: Path, projector: Path, *, threads: int, max_tokens: int):
        self._library = mtmd = _load_library(library)
        parameters = mtmd.llama_model_default_params()
        # mtmd needs only the vocabulary and the width of the chat model, not its weights.
        parameters.no_alloc, parameters.load_mode = True, _NO_MAPPING
        chat_model = mtmd.llama_model_load_from_file(str(model).encode(), parameters)
        if not chat_model:
            raise ProjectorError(f"{model.name} cannot be loaded: {_reason()}")
        self._width: int = mtmd.llama_model_n_embd_inp(chat_model)
        settings = mtmd.mtmd_context_params_default()
        settings.use_gpu, settings.warmup, settings.n_threads = False, False, threads
        settings.image_max_tokens = max_tokens
        self._context = mtmd.mtmd_init_from_file(str(projector).encode(), chat_model, settings)
        if not self._context:
            raise ProjectorError(f"{projector.name} cannot be used with {model.name}: {_reason()}")
        self._has_grid = bool(mtmd.mtmd_decode_use_mrope(self._context))
        self.accepts_images = bool(mtmd.mtmd_support_vision(self._context))
        self.sample_rate = max(0, mtmd.mtmd_get_audio_sample_rate(self._context))
        """The sample rate of audio in Hz; 0 if the projector does not accept audio."""

    def encode(self, media: Image | Audio) -> list[Chunk]:
        """Return the tokens and embeddings of an image or of audio. Raises InvalidMedia or ProjectorError."""
        mtmd = self._library
        _errors.clear()
        if isinstance(media, Image):
            bitmap = mtmd.mtmd_bitmap_init(media.width, media.height, media.pixels)
        else:
            bitmap = mtmd.mtmd_bitmap_init_from_audio(len(media.samples) // 4, media.samples)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            marker = mtmd.mtmd_default_marker()
            text = _InputText(marker, len(marker), False, True)
            if mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), (_P * 1)(bitmap), 1):
                raise InvalidMedia(f"The model cannot process this file: {_reason()}")
            count = mtmd.mtmd_input_chunks_size(chunks)
            return [self._chunk(mtmd.mtmd_input_chunks_get(chunks, index)) for index in range(count)]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def _chunk(self, chunk: Any) -> Chunk:
        mtmd = self._library
        kind, count = mtmd.mtmd_input_chunk_get_type(chunk), mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        if kind == _TEXT:
            size = c_size_t()
            ids = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
            # mtmd has -1 for markers that the vocabulary lacks.
            return Chunk([token for token in ids[: size.value] if token >= 0])
        if mtmd.mtmd_encode_chunk(self._context, chunk):
            raise ProjectorError(f"Encoding failed: {_reason()}")
        output = mtmd.mtmd_get_output_embd(self._context)
        embeddings = np.ctypeslib.as_array(output, (count, self._width)).copy()
        positions = self._positions(chunk, kind, count, 0)
        return Chunk(
            embeddings=embeddings,
            positions=positions,
            steps=self._positions(chunk, kind, count, 1) - positions,
            num_positions=mtmd.mtmd_input_chunk_get_n_pos(chunk),
            is_causal=not mtmd.mtmd_decode_use_non_causal(self._context, chunk),
        )

    def _positions(self, chunk: Any, kind: int, count: int, start: int) -> npt.NDArray[np.int32]:
        """Return the positions of a chunk's embeddings, in the order in which llama.cpp reads them."""
        row = np.arange(start, start + count, dtype=np.int32)
        if not self._has_grid:
            return row[np.newaxis]
        if kind == _AUDIO:
            return np.stack([row] * 4)
        tokens = self._library.mtmd_input_chunk_get_tokens_image(chunk)
        get = self._library.mtmd_image_tokens_get_decoder_pos
        found = (get(tokens, start, index) for index in range(count))
        return np.array([(each.t, each.y, each.x, each.z) for each in found], np.int32).T


_errors: deque[str] = deque(maxlen=4)


def _reason() -> str:
    return _errors[-1] if _errors else "unknown reason"


def _log_line(level: int, text: bytes, _: Any) -> None:
    if level == _ERROR and (line := text.decode(errors="replace").strip()):
        _errors.append(line[:300])
        log.error("llama.cpp: %s", line[:300])


_LOG_CALLBACK = _LOG(_log_line)


def _load_library(path: Path) -> Any:
    os.environ["GGML_NO_BACKTRACE"] = "1"  # otherwise, a failed assertion starts a debugger
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function: Callable[..., Any] = getattr(library, name)
            function.restype, function.argtypes = result, arguments  # type: ignore[attr-defined]
    except (OSError, AttributeError) as error:
        raise ProjectorError(f"{path} cannot be loaded: {error}") from error
    version = library.llama_version().decode()
    defaults, model = library.mtmd_context_params_default(), library.llama_model_default_params()
    found = [defaults.use_gpu, defaults.n_threads, defaults.flash_attn_type, defaults.image_max_tokens]
    found += [defaults.batch_max_tokens, model.split_mode, model.use_extra_bufts, model.no_alloc]
    if version != VERSION or found != [True, 4, -1, -1, 1024, 1, True, False]:
        raise ProjectorError(f"The installed multimodal library {version} is not the supported release {VERSION}")
    library.llama_log_set(_LOG_CALLBACK, None)
    library.mtmd_helper_log_set(_LOG_CALLBACK, None)
    library.llama_backend_init()
    return library
