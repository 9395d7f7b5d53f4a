"""The Kokoro-82M engine on onnxruntime: one model for all voices and for the languages that kokoro_g2p.py supports."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from backends.common.onnx_session import open_session
from backends.speech.engines import Samples, Voices, cannot_clone
from backends.speech.kokoro_g2p import KokoroG2P
from backends.speech.sentences import cut, split_sentences
from contract.parameters import SpeechParameters

_MAX_CHARACTERS = 150


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
        self._g2p = KokoroG2P()

    def voice(self, name: str | None, reference: bytes | None) -> "KokoroVoice":
        if reference is not None:
            raise cannot_clone()
        return KokoroVoice(self._session, self._ids, self._styles[self._names.find(name)], self._g2p)


class KokoroVoice:
    """A voice of KokoroEngine. It has a different style for each number of phonemes in a piece of text."""

    def __init__(self, session: onnxruntime.InferenceSession, ids: Mapping[str, int], styles: Samples, g2p: KokoroG2P):
        self._session, self._ids, self._styles, self._g2p = session, ids, styles, g2p

    def phonemes(self, text: str) -> Iterator[str]:
        read = self._g2p.for_text(text)
        for sentence in split_sentences(text, _MAX_CHARACTERS):
            yield from cut(read(sentence), len(self._styles))

    def speak(self, phonemes: str, speed: float) -> Samples:
        ids = [self._ids[phoneme] for phoneme in phonemes if phoneme in self._ids]
        if not ids:
            return np.zeros(0, np.float32)
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": self._styles[len(ids) - 1].reshape(1, -1),
            "speed": np.array([speed], np.float32),
        }
        samples: Samples = self._session.run(None, inputs)[0].reshape(-1)
        return samples
