"""The Kokoro-82M engine on onnxruntime: one network for all voices, each of which has a language."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from backends.common.onnx_session import open_session
from backends.speech.engines import Samples, Voices, cannot_clone
from backends.speech.kokoro_g2p import KokoroG2P
from backends.speech.sentences import cut, split_sentences
from contract.options import SpeechOptions
from contract.parameters import SpeechParameters

_MAX_CHARACTERS = 150

# The first letter of a voice's name → the language of the voice.
_LANGUAGES = {
    "a": "en-US",
    "b": "en-GB",
    "e": "es",
    "f": "fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-BR",
    "z": "zh",
}
_ENGLISH = ("en-US", "en-GB")

# The scripts of languages that have voices of their own, in the order in which they are looked for in a text.
_SCRIPTS = (
    ("j", re.compile(r"[\u3040-\u30ff\uff66-\uff9f]")),
    ("z", re.compile(r"[\u3005\u3400-\u9fff]")),
    ("h", re.compile(r"[\u0900-\u097f]")),
)


class KokoroEngine:
    """Loads kokoro.onnx, vocab.json and .npz files, which map voice names to styles [maximum phonemes, 1, 256]."""

    rate, hop = 24_000, 600
    speeds = (0.5, 2.0)

    def __init__(self, folder: Path, parameters: SpeechParameters):
        self._session = open_session(folder / "kokoro.onnx", parameters.device, parameters.threads)
        self._ids: dict[str, int] = json.loads((folder / "vocab.json").read_bytes())["vocab"]
        self._styles: dict[str, Samples] = {}
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as styles:
                self._styles |= {name: styles[name].astype(np.float32) for name in styles.files}
        self._names = Voices(self._styles, parameters.voice, parameters.voice_aliases)
        # Published networks name the input of phonemes `tokens` or `input_ids`.
        self._input = self._session.get_inputs()[0].name
        self._g2p = KokoroG2P(set(map(language_of, self._styles)))

    def voice(self, options: SpeechOptions, reference: bytes | None) -> "KokoroVoice":
        if reference is not None:
            raise cannot_clone()
        # OpenAI's names of voices say nothing about the language.
        return KokoroVoice(self, self._names.find(options.voice), is_chosen=options.voice in self._styles)

    def voice_for(self, text: str, voice: str) -> str:
        """Return a voice of the language of a text in another script than Latin, if there is one, or else `voice`."""
        for letter, script in _SCRIPTS:
            if script.search(text):
                return next((name for name in self._styles if name[0] == letter), voice)
        return voice

    def reader(self, text: str, voice: str) -> Callable[[str], Iterator[str]]:
        """Return the function that converts a piece of a text to phonemes, in parts that the voice has styles for."""
        read = self._g2p.for_text(text, language_of(voice))
        return lambda piece: cut(read(piece), len(self._styles[voice]))

    def speak(self, voice: str, phonemes: str, speed: float) -> Samples:
        """Return the speech of a piece of text. A voice has a different style for each number of phonemes."""
        ids = [self._ids[phoneme] for phoneme in phonemes if phoneme in self._ids]
        if not ids:
            return np.zeros(0, np.float32)
        inputs = {
            self._input: np.array([[0, *ids, 0]], np.int64),
            "style": self._styles[voice][len(ids) - 1].reshape(1, -1),
            "speed": np.array([speed], np.float32),
        }
        samples: Samples = self._session.run(None, inputs)[0].reshape(-1)
        return samples


class KokoroVoice:
    """A voice of KokoroEngine. Unless a request has chosen it, texts in other scripts get a voice of their language."""

    def __init__(self, engine: KokoroEngine, name: str, *, is_chosen: bool):
        self._engine, self._name, self._is_chosen = engine, name, is_chosen

    def phonemes(self, text: str) -> Iterator[str]:
        if not self._is_chosen:
            self._name = self._engine.voice_for(text, self._name)
        read, is_english = self._engine.reader(text, self._name), language_of(self._name) in _ENGLISH
        # Voices of the languages without Latin letters read those as English.
        is_english = is_english or language_of(self._name) in ("hi", "ja", "zh")
        for sentence in split_sentences(text, _MAX_CHARACTERS, is_english=is_english):
            yield from read(sentence)

    def speak(self, phonemes: str, speed: float) -> Samples:
        return self._engine.speak(self._name, phonemes, speed)


def language_of(voice: str) -> str:
    """Return the language of a voice, by its name."""
    return _LANGUAGES.get(voice[0], "en-US")
