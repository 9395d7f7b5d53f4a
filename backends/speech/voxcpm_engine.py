"""The VoxCPM engine, with voice cloning and streaming. The model needs torch, so it runs in a process of its own."""

import hashlib
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from backends.common.errors import EngineFailure, InvalidRequest
from backends.speech.engines import Samples, Voices
from backends.speech.reference import read_reference
from backends.speech.sentences import split_sentences
from backends.speech.speaker_process import SpeakerProcess
from contract.options import SpeechOptions
from contract.parameters import SpeechParameters

_DEFAULT_VOICE = "default"

# The models lose words in longer pieces, and with longer references. A reference that has a transcript cannot be cut.
_MAX_CHARACTERS, _REFERENCE_SECONDS, _MAX_TRANSCRIBED_SECONDS = 150, 12, 30


class VoxCPMEngine:
    """Loads the files that the export writes. The parameter `environment` names the Python environment with voxcpm.

    The model speaks one piece of text at a time, because the state of that is part of the model.
    """

    speeds = (1.0, 1.0)

    def __init__(self, folder: Path, parameters: SpeechParameters):
        self.process = SpeakerProcess(Path(__file__).with_name("voxcpm_process.py"), folder, parameters)
        description = self.process.description
        self.rate, self.hop = int(description["rate"]), int(description["hop"])
        self.reference_rate = int(description["reference_rate"])
        self.needs_transcript = bool(description["needs_transcript"])
        # Among languages in Latin letters, the model itself tells which one a text is in.
        self.is_english = set(parameters.languages.split()) <= {"en", "zh"}
        self._names = Voices([_DEFAULT_VOICE], _DEFAULT_VOICE, parameters.voice_aliases)
        self.is_speaking = threading.Lock()

    def voice(self, options: SpeechOptions, reference: bytes | None) -> "VoxCPMVoice":
        if reference is None:
            return VoxCPMVoice(self, self._names.find(options.voice), None, "")
        transcript = (options.reference_text or "").strip()
        if self.needs_transcript and not transcript:
            message = "This model needs the text that is spoken in the reference audio: send it in 'reference_text'"
            raise InvalidRequest(message, "reference_text", "missing_parameter")
        name = hashlib.sha256(reference + transcript.encode()).hexdigest()
        return VoxCPMVoice(self, name, reference, transcript)


class VoxCPMVoice:
    """A voice cloned from an encoded audio file, or the default voice."""

    def __init__(self, engine: VoxCPMEngine, name: str, reference: bytes | None, transcript: str):
        self._engine, self._name, self._reference, self._transcript = engine, name, reference, transcript
        self._samples: bytes | None = None

    def phonemes(self, text: str) -> Iterator[str]:
        """Yield pieces of the text instead of phonemes, because this model reads plain text.

        Raises InvalidRequest if the reference audio is invalid.
        """
        if self._reference is not None:
            seconds = _MAX_TRANSCRIBED_SECONDS if self._transcript else _REFERENCE_SECONDS
            rate, whole = self._engine.reference_rate, bool(self._transcript)
            self._samples = read_reference(self._reference, rate, seconds, whole=whole).tobytes()
            self._reference = None
        pieces = split_sentences(text, _MAX_CHARACTERS, is_english=self._engine.is_english)
        yield from (piece for piece in pieces if any(map(str.isalnum, piece)))

    def stream(self, phonemes: str) -> Generator[Samples, None, None]:
        """Yield the speech of a piece as it is generated.

        The thread waits while another one speaks. Raises InvalidRequest if the transcript is too long.
        """
        call = self._engine.process.call
        with self._engine.is_speaking:
            if not call("start", self._name, phonemes):
                if not call("load_voice", self._name, self._samples, self._transcript):
                    raise InvalidRequest("'reference_text' is too long", "reference_text", "too_long")
                if not call("start", self._name, phonemes):
                    raise EngineFailure("The voice could not be loaded")
            while (content := call("next_chunk")) is not None:
                yield np.frombuffer(content, np.float32)

    def speak(self, phonemes: str, speed: float) -> Samples:
        return np.concatenate([np.zeros(0, np.float32), *self.stream(phonemes)])
