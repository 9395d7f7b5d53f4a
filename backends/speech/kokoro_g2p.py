"""Converts text in the nine languages of Kokoro's voices, or in a mix of them, to the phonemes it was trained on."""

import re
import unicodedata
from collections.abc import Callable, Collection

import jieba
from hibari.g2p import G2P
from misaki.cutlet import Cutlet
from misaki.zh import ZHG2P
from misaki.zh_normalization.text_normalization import TextNormalizer

Reader = Callable[[str], str]

_KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9f]")
_ASIAN = re.compile(r"[\u3005\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f]")
_DEVANAGARI = re.compile(r"[\u0900-\u097f]")

_WORD = r"[A-Za-z\u00c0-\u024f][A-Za-z0-9\u00c0-\u024f'’]*"
_WORDS = rf"{_WORD}(?:[ \-]{_WORD})*"
_LATIN = re.compile(rf"({_WORDS})")
_LATIN_OR_HINDI = re.compile(rf"({_WORDS}|[\u0900-\u0963\u0966-\u097f]+(?: [\u0900-\u0963\u0966-\u097f]+)*)")

# Languages in Latin letters, except English, and their names in eSpeak NG. Hindi's name is the same.
_ESPEAK_VOICES = {"es": "es", "fr": "fr", "it": "it", "pt-BR": "pt-br"}

# Cutlet does not read Japanese numbers of more than nine digits.
_LONG_NUMBER = re.compile(r"\d{10,}")

# Patterns of amounts of money, and the Chinese text that replaces each amount. The Chinese normalizer would read an
# amount digit by digit.
_MONEY = ((re.compile(r"[¥￥]\s?(\d+(?:\.\d+)?)"), r"\1元"), (re.compile(r"\$\s?(\d+(?:\.\d+)?)"), r"\1美元"))


class KokoroG2P:
    """Converts sentences to phonemes.

    Scripts tell Chinese, Japanese and Hindi from the languages in Latin letters, among which the language of the voice
    decides. Words in Latin letters within a Chinese, Japanese or Hindi sentence are read in that language too.
    """

    def __init__(self, languages: Collection[str] = ()) -> None:
        """Load what the voices of these languages need, in addition to American English, Chinese and Japanese."""
        self._american = G2P()
        self._british = G2P(british=True) if "en-GB" in languages else self._american
        if {*_ESPEAK_VOICES, "hi"} & set(languages):
            from backends.speech.espeak import Espeak  # installed only with voices of the languages that it reads

            self._espeak = Espeak()
        jieba.initialize()  # otherwise the first request would wait until the dictionary is loaded
        self._chinese, self._normalizer = ZHG2P(), TextNormalizer()
        self._japanese = Cutlet()

    def for_text(self, text: str, language: str = "en-US") -> Reader:
        """Return the function that converts a sentence of `text` to phonemes.

        `language` is the language of the voice: `en-US`, `en-GB`, `es`, `fr`, `hi`, `it`, `ja`, `pt-BR` or `zh`. Voices
        of the languages without Latin letters read Latin letters as American English. If `text` has any kana, the
        Chinese characters in its sentences are read as Japanese.
        """
        latin = self._latin_reader(language)
        asian = self._read_japanese if _KANA.search(text) else self._read_chinese

        def read(sentence: str) -> str:
            if _ASIAN.search(sentence):
                return _join(sentence, _LATIN_OR_HINDI, asian, latin, self._read_hindi)
            if _DEVANAGARI.search(sentence):
                return _join(sentence, _LATIN, self._read_hindi, latin, self._read_hindi)
            return latin(sentence)

        return read

    def _latin_reader(self, language: str) -> Reader:
        if voice := _ESPEAK_VOICES.get(language):
            return lambda text: self._espeak.phonemes(text, voice)
        english = self._british if language == "en-GB" else self._american
        return lambda text: str(english(text))

    def _read_hindi(self, text: str) -> str:
        return self._espeak.phonemes(text, "hi")

    def _read_chinese(self, text: str) -> str:
        for pattern, replacement in _MONEY:
            text = pattern.sub(replacement, text)
        return str(self._chinese("".join(self._normalizer.normalize(text)))[0])

    def _read_japanese(self, text: str) -> str:
        readable = unicodedata.normalize("NFKC", text).replace("%", "パーセント")
        return str(self._japanese(_LONG_NUMBER.sub(lambda digits: " ".join(digits[0]), readable))[0])


def _join(sentence: str, others: re.Pattern[str], main: Reader, latin: Reader, hindi: Reader) -> str:
    """Return the phonemes of a sentence in which the parts that `others` matches are in other scripts."""
    # After the split, the parts with an odd index are matches.
    parts = [(index % 2, part) for index, part in enumerate(others.split(sentence)) if part.strip()]
    readers = [(hindi if _DEVANAGARI.match(part) else latin) if is_other else main for is_other, part in parts]
    return " ".join(read(part).strip() for read, (_, part) in zip(readers, parts, strict=True))
