"""Converts text to phonemes with the library eSpeak NG, whose rules Kokoro's languages other than English, Chinese and
Japanese were trained on.

The library and its data come with the package espeakng-loader. Both have the license GPL-3.0-or-later.
"""

import ctypes
import re
import threading

import espeakng_loader

# Constants of eSpeak NG's speak_lib.h: a mode of output, options, and an encoding.
_RETRIEVAL, _DONT_EXIT, _UTF8 = 1, 0x8000, 1

# Joins the letters of a diphthong or affricate in the result.
_TIE = "^"

# IPA, with a character between the letters of one phoneme.
_PHONEMES_MODE = 0x02 | 0x80 | ord(_TIE) << 8

# The names of the languages whose rules read a foreign word, such as `(en)`.
_FLAG = re.compile(r"\(.+?\)")

# Punctuation marks with the blanks around them. A comma or colon between digits belongs to a number, and a full stop
# between letters or digits to a number or an address.
_MARKS = re.compile(r"((?:\s*(?:[;!?¡¿—…।\"«»“”()\[\]{}]|(?<!\d)[,:]|[,:](?!\d)|(?<!\w)\.|\.(?!\w))+\s*)+)")

# Marks that Kokoro does not know, and the marks that replace them.
_KNOWN_MARKS = str.maketrans({"«": "“", "»": "”", "।": ".", "¡": None, "¿": None, "\n": " "})

# Phonemes of eSpeak NG with two letters, and the single letters that Kokoro has for them.
_LETTERS = {
    "a^ɪ": "I",
    "a^ʊ": "W",
    "d^z": "ʣ",
    "d^ʒ": "ʤ",
    "e^ɪ": "A",
    "o^ʊ": "O",
    "s^s": "S",
    "t^s": "ʦ",
    "t^ʃ": "ʧ",
    "ɔ^ɪ": "Y",
    "ə^ʊ": "Q",
}
_UNITED = re.compile("|".join(map(re.escape, _LETTERS)))


class Espeak:
    """The library, of which a process has one. Several threads may use it at once; they take turns."""

    def __init__(self) -> None:
        self._lock, self._voice = threading.Lock(), ""
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = espeakng_loader.get_data_path().encode()
        if self._library.espeak_Initialize(_RETRIEVAL, 0, data, _DONT_EXIT) < 0:
            raise OSError("eSpeak NG could not be initialized")

    def phonemes(self, text: str, voice: str) -> str:
        """Return the phonemes of a text in Kokoro's alphabet, with the text's punctuation.

        `voice` is eSpeak NG's name of the language.
        """
        # After the split, the parts with an odd index are punctuation.
        parts = enumerate(_MARKS.split(text))
        with self._lock:
            self._select(voice)
            read = [part.translate(_KNOWN_MARKS) if index % 2 else self._read(part) for index, part in parts]
        return "".join(read).strip()

    def _select(self, voice: str) -> None:
        if voice == self._voice:
            return
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice}")
        self._voice = voice

    def _read(self, text: str) -> str:
        rest, clauses = ctypes.c_char_p(text.encode()), []
        while rest.value is not None:
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _PHONEMES_MODE).decode())
        phonemes = " ".join(_FLAG.sub("", " ".join(clauses)).split())
        united = _UNITED.sub(lambda found: _LETTERS[found[0]], phonemes)
        return united.replace(_TIE, "").replace("-", "")
