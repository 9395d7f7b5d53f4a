"""The client of the process that encodes images and audio. It starts and restarts that process."""

import hashlib
import logging
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from backends.common.child_process import ChildProcess, module_command
from backends.common.errors import EngineDown, EngineFailure, InvalidRequest
from backends.common.llamacpp.media.messages import Audio, Chunk, Encoded, Image, Ready

log = logging.getLogger(__name__)

_START_SECONDS, _SECONDS = 300.0, 600.0

# The results of the last files are kept, because the next request of a conversation has the same files.
_MAX_CACHE_BYTES = 256 << 20


class Encoding(NamedTuple):
    """An encoded image or audio file. `digest` identifies its content."""

    digest: bytes
    chunks: list[Chunk]


class MediaEncoder:
    """Encodes one image or audio file at a time. `max_image_tokens` limits the embeddings of an image.

    The results of the last files are kept, up to `max_cache_bytes` or the last one.
    """

    def __init__(self, folder: Path, max_image_tokens: int, *, max_cache_bytes: int = _MAX_CACHE_BYTES):
        self._max_cache_bytes = max_cache_bytes
        command, environment = module_command("backends.common.llamacpp.media.process")
        self._command = [*command, str(folder), str(max_image_tokens)]
        # Idle threads of OpenMP would otherwise spin, and slow down the engine.
        self._environment = environment | {"OMP_WAIT_POLICY": "PASSIVE"}
        self._process: ChildProcess | None = None
        self._lock, self._is_closed = threading.Lock(), False
        self._cache: OrderedDict[bytes, list[Chunk]] = OrderedDict()
        self._cache_bytes = 0
        self.ready = self._start()

    def encode(self, media: Image | Audio, param: str) -> Encoding:
        """Return the tokens and embeddings of a file. Raises InvalidRequest naming `param`, EngineFailure, EngineDown.

        If the library crashes on a file, only that file's request fails.
        """
        digest = hashlib.sha256(repr(media[:-1]).encode() + media[-1]).digest()
        with self._lock:
            chunks = self._cache.get(digest)
            if chunks is None:
                chunks = self._encode(media, param)
                self._remember(digest, chunks)
            self._cache.move_to_end(digest)
            return Encoding(digest, chunks)

    def close(self) -> None:
        """End the process for good. A file that is being encoded fails."""
        self._is_closed = True
        if self._process:
            self._process.kill()

    def _end(self) -> None:
        if self._process:
            self._process.close()
        self._process = None

    def _require_open(self) -> None:
        if self._is_closed:
            raise EngineDown("The model is being unloaded")

    def _encode(self, media: Image | Audio, param: str) -> list[Chunk]:
        kind = "image" if isinstance(media, Image) else "audio"
        if self._process is None or not self._process.is_running:
            self._end()
            self._start()
        process = self._process
        assert process is not None  # noqa: S101
        connection = process.connection
        try:
            connection.send(media)
            if not connection.poll(_SECONDS):
                raise EngineFailure(f"The {kind} took longer than {_SECONDS:.0f} seconds to encode")
            encoded: Encoded = connection.recv()
        except EngineFailure:
            self._end()
            raise
        except (EOFError, OSError) as error:
            self._require_open()
            log.error("the media process exited with code %s", process.wait())
            self._end()
            raise EngineFailure(f"The model failed on the {kind}", param) from error
        if encoded.is_client_error:
            raise InvalidRequest(encoded.error, param, f"invalid_{kind}")
        if encoded.error:
            log.error("encoding failed: %s", encoded.error)
            raise EngineFailure(f"The model failed on the {kind}", param)
        return encoded.chunks

    def _remember(self, digest: bytes, chunks: list[Chunk]) -> None:
        self._cache[digest] = chunks
        self._cache_bytes += _size(chunks)
        while self._cache_bytes > self._max_cache_bytes and len(self._cache) > 1:
            self._cache_bytes -= _size(self._cache.popitem(last=False)[1])

    def _start(self) -> Ready:
        self._require_open()
        self._process = ChildProcess(self._command, self._environment)
        try:
            if not self._process.connection.poll(_START_SECONDS):
                raise EngineDown("The process that encodes images and audio did not start in time")
            ready: Ready | str = self._process.connection.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            self._end()
            raise EngineDown(f"The process that encodes images and audio exited with code {code}") from error
        except EngineDown:
            self._end()
            raise
        if isinstance(ready, str):
            self._end()
            raise EngineDown(ready)
        return ready


def _size(chunks: list[Chunk]) -> int:
    return sum(chunk.embeddings.nbytes for chunk in chunks if chunk.embeddings is not None)
