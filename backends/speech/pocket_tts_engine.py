"""The Pocket TTS engine, with voice cloning. The model needs torch, so it runs in a child process.

The child process runs in its own Python environment.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from backends.common.audio.decoding import read_blocks
from backends.common.child_process import ChildProcess
from backends.common.errors import EngineDown, EngineFailure, InvalidRequest
from backends.speech.engines import Samples, Voices, cannot_clone
from backends.speech.sentences import split_sentences
from contract.parameters import SpeechParameters

log = logging.getLogger(__name__)

# Maximum number of characters per piece. The package pocket_tts splits a text of more than 50 tokens, but only at
# punctuation, so this module must cut a text that has no punctuation.
_MAX_CHARACTERS = 150

# The model was trained with reference audio of _REFERENCE_SECONDS, so only that much of a file is used. A file whose
# header states a length of more than _MAX_SECONDS is rejected.
_REFERENCE_SECONDS, _MAX_SECONDS = 30, 600


class PocketTTSEngine:
    """Loads model.safetensors, its tokenizer, an optional config.yaml, and voices in the other .safetensors files.

    The parameter `environment` names the Python environment that has the package pocket_tts. If the child process
    dies, the current request fails, and the next request restarts the process.
    """

    hop = 1920
    speeds = (1.0, 1.0)

    def __init__(self, folder: Path, parameters: SpeechParameters):
        environments = os.environ.get("TRIDENT_ENVIRONMENTS", "")
        python = Path(environments) / parameters.environment / "bin" / "python"
        if not (environments and python.exists()):
            raise EngineDown(f"{python} not found; TRIDENT_ENVIRONMENTS must name the folder of Python environments")
        script = Path(__file__).with_name("pocket_tts_process.py")
        self._command = [str(python), str(script), str(folder), str(parameters.threads)]
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._connection: Connection | None = None
        description = self._start()
        self.rate, self._can_clone = int(description["rate"]), bool(description["can_clone"])
        names = [path.stem for path in sorted(folder.glob("*.safetensors")) if path.stem != "model"]
        self._names = Voices(names, parameters.voice, parameters.voice_aliases) if names else None

    def voice(self, name: str | None, reference: bytes | None) -> "PocketTTSVoice":
        if reference is not None:
            if not self._can_clone:
                raise cannot_clone()
            return PocketTTSVoice(self, hashlib.sha256(reference).hexdigest(), reference)
        if self._names is None:
            message = "This model has no built-in voices: send reference audio in 'messages'"
            raise InvalidRequest(message, "voice", "voice_not_found")
        return PocketTTSVoice(self, self._names.find(name), None)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `Speaker` in the child process.

        Raises EngineFailure if the method fails, or EngineDown if the process died.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._start()
                assert self._connection is not None  # noqa: S101
                self._connection.send((method, arguments))
                succeeded, result = self._connection.recv()
            except (EOFError, OSError) as error:
                self._drop()
                raise EngineDown("The model's process died; the next request restarts it") from error
        if not succeeded:
            log.error("%s failed: %s", method, result)
            raise EngineFailure("The model failed on this request")
        return result

    def _start(self) -> dict[str, Any]:
        # The child process runs a different Python from Triton's stub, so it must not inherit the stub's library paths.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "PYTHON"))}
        self._process = ChildProcess(self._command, environment)
        self._connection = self._process.connection
        try:
            description: dict[str, Any] = self._connection.recv()
        except EOFError:
            self._drop()
            raise EngineDown("The model's process did not start; see the server log") from None
        return description

    def _drop(self) -> None:
        if self._process is not None:
            self._process.close()
        self._connection = self._process = None


class PocketTTSVoice:
    """A voice cloned from an encoded audio file, or one of the model's built-in voices."""

    def __init__(self, engine: PocketTTSEngine, name: str, reference: bytes | None):
        self._engine, self._name, self._reference = engine, name, reference
        self._samples: bytes | None = None

    def phonemes(self, text: str) -> Iterator[str]:
        """Yield pieces of the text instead of phonemes, because this model reads plain text.

        Raises InvalidRequest if the reference audio is invalid.
        """
        if self._reference is not None:
            # Twice the length is requested, because a block may be up to 20 seconds shorter than requested.
            blocks = read_blocks(self._reference, 2 * _REFERENCE_SECONDS, _MAX_SECONDS, self._engine.rate)
            self._samples = next(blocks)[: _REFERENCE_SECONDS * self._engine.rate].tobytes()
            self._reference = None
        yield from split_sentences(text, _MAX_CHARACTERS)

    def speak(self, phonemes: str, speed: float) -> Samples:
        content = self._engine.call("speak", self._name, phonemes)
        if content is None:
            self._engine.call("load_voice", self._name, self._samples)
            content = self._engine.call("speak", self._name, phonemes)
        return np.frombuffer(content, np.float32)
