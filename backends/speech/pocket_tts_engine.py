"""The Pocket TTS engine, with voice cloning. The model needs torch, so it runs in a process of its own."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from backends.common.errors import InvalidRequest
from backends.speech.engines import Samples, Voices, cannot_clone
from backends.speech.reference import read_reference
from backends.speech.sentences import split_sentences
from backends.speech.speaker_process import SpeakerProcess
from contract.options import SpeechOptions
from contract.parameters import SpeechParameters

# Maximum number of characters per piece. The package pocket_tts splits a text of more than 50 tokens, but only at
# punctuation, so this module must cut a text that has no punctuation.
_MAX_CHARACTERS = 150

# The model was trained with reference audio of this length, so only that much of a file is used.
_REFERENCE_SECONDS = 30


class PocketTTSEngine:
    """Loads model.safetensors, its tokenizer, an optional config.yaml, and voices in the other .safetensors files.

    The parameter `environment` names the Python environment that has the package pocket_tts.
    """

    hop = 1920
    speeds = (1.0, 1.0)

    def __init__(self, folder: Path, parameters: SpeechParameters):
        self.process = SpeakerProcess(Path(__file__).with_name("pocket_tts_process.py"), folder, parameters)
        self.rate = int(self.process.description["rate"])
        names = [path.stem for path in sorted(folder.glob("*.safetensors")) if path.stem != "model"]
        self._names = Voices(names, parameters.voice, parameters.voice_aliases) if names else None

    def voice(self, options: SpeechOptions, reference: bytes | None) -> "PocketTTSVoice":
        if reference is not None:
            if not self.process.description["can_clone"]:
                raise cannot_clone()
            return PocketTTSVoice(self, hashlib.sha256(reference).hexdigest(), reference)
        if self._names is None:
            message = "This model has no built-in voices: send reference audio in 'messages'"
            raise InvalidRequest(message, "voice", "voice_not_found")
        return PocketTTSVoice(self, self._names.find(options.voice), None)


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
            self._samples = read_reference(self._reference, self._engine.rate, _REFERENCE_SECONDS).tobytes()
            self._reference = None
        yield from split_sentences(text, _MAX_CHARACTERS)

    def speak(self, phonemes: str, speed: float) -> Samples:
        call = self._engine.process.call
        content = call("speak", self._name, phonemes)
        if content is None:
            call("load_voice", self._name, self._samples)
            content = call("speak", self._name, phonemes)
        return np.frombuffer(content, np.float32)
