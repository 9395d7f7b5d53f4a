"""Converts text in English, Chinese, Japanese, or a mix of them to the phonemes that Kokoro was trained on."""

import re
import unicodedata
from collections.abc import Callable

import jieba
from hibari.g2p import G2P
from misaki.cutlet import Cutlet
from misaki.zh import ZHG2P
from misaki.zh_normalization.text_normalization import TextNormalizer

_KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9f]")
_ASIAN = re.compile(r"[\u3005\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f]")
_WORD = r"[A-Za-z][A-Za-z0-9'’]*"
_ENGLISH = re.compile(rf"({_WORD}(?:[ \-]{_WORD})*)")

# Cutlet does not read Japanese numbers of more than nine digits.
_LONG_NUMBER = re.compile(r"\d{10,}")

# Patterns of amounts of money, and the Chinese text that replaces each amount. The Chinese normalizer would read an
# amount digit by digit.
_MONEY = ((re.compile(r"[¥￥]\s?(\d+(?:\.\d+)?)"), r"\1元"), (re.compile(r"\$\s?(\d+(?:\.\d+)?)"), r"\1美元"))


class KokoroG2P:
    """Converts sentences to phonemes.

    In a sentence with Chinese or Japanese characters, words in Latin letters are read as English, and the rest as
    Chinese or Japanese. All other sentences are read as English.
    """

    def __init__(self) -> None:
        self._english = G2P()
        jieba.initialize()  # otherwise the first request would wait until the dictionary is loaded
        self._chinese, self._normalizer = ZHG2P(), TextNormalizer()
        self._japanese = Cutlet()

    def for_text(self, text: str) -> Callable[[str], str]:
        """Return the function that converts a sentence of `text` to phonemes.

        If `text` has any kana, the Chinese characters in its sentences are read as Japanese.
        """
        read_asian = self._read_japanese if _KANA.search(text) else self._read_chinese

        def read(sentence: str) -> str:
            if not _ASIAN.search(sentence):
                return str(self._english(sentence))
            # After the split, the parts with an odd index are English.
            parts = enumerate(_ENGLISH.split(sentence))
            converted = [
                self._english(part) if index % 2 else read_asian(part) for index, part in parts if part.strip()
            ]
            return " ".join(phonemes.strip() for phonemes in converted)

        return read

    def _read_chinese(self, text: str) -> str:
        for pattern, replacement in _MONEY:
            text = pattern.sub(replacement, text)
        return str(self._chinese("".join(self._normalizer.normalize(text)))[0])

    def _read_japanese(self, text: str) -> str:
        readable = unicodedata.normalize("NFKC", text).replace("%", "パーセント")
        return str(self._japanese(_LONG_NUMBER.sub(lambda digits: " ".join(digits[0]), readable))[0])
