"""The hibari engine: small English voices, each a separate 8 MB model distilled from Kokoro."""

from collections.abc import Iterator
from pathlib import Path

from hibari import Hibari
from hibari.g2p import G2P
from hibari.voices import VOICES

from backends.speech.engines import Samples, Voices, cannot_clone
from backends.speech.sentences import cut, split_sentences
from contract.options import SpeechOptions
from contract.parameters import SpeechParameters

_MAX_CHARACTERS, _MAX_PHONEMES = 300, 400


class HibariEngine:
    """Loads a voice from each VOICE.onnx in the folder, where VOICE is the voice's name in the package hibari.

    Each call to `speak` uses one core.
    """

    rate, hop = 24_000, 300
    speeds = (0.5, 2.0)

    def __init__(self, folder: Path, parameters: SpeechParameters):
        files = {path.stem: path for path in sorted(folder.glob("*.onnx"))}
        readers = {british: G2P(british=british) for british in {bool(VOICES[name]["british"]) for name in files}}
        self._voices = {
            name: HibariVoice(Hibari(name, str(path), g2p=readers[VOICES[name]["british"]]))
            for name, path in files.items()
        }
        self._names = Voices(files, parameters.voice, parameters.voice_aliases)

    def voice(self, options: SpeechOptions, reference: bytes | None) -> "HibariVoice":
        if reference is not None:
            raise cannot_clone()
        return self._voices[self._names.find(options.voice)]


class HibariVoice:
    """A voice of HibariEngine."""

    def __init__(self, model: Hibari):
        self._model = model

    def phonemes(self, text: str) -> Iterator[str]:
        for sentence in split_sentences(text, _MAX_CHARACTERS):
            yield from cut(self._model.g2p(sentence), _MAX_PHONEMES)

    def speak(self, phonemes: str, speed: float) -> Samples:
        samples: Samples = self._model.from_phonemes(phonemes, speed, seed=0)
        return samples
