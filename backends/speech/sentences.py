"""Splits a text into sentences, and sentences into pieces that are short enough for a model."""

import re
from collections.abc import Iterator

from hibari import Hibari

from backends.speech.normalization import spoken

_ASIAN = re.compile(r"[\u3005\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f]")
_OTHER_END = re.compile(r"(?<=[。！？।])")

# A run of 16 or more digits is too long to be read as a number, so it is split to be read digit by digit.
_DIGITS = re.compile(r"\d{16,}")

# The places where a text may be cut, in order of preference.
_CUTS = (re.compile(r"[,;:—，；：、]\s*"), re.compile(r"\s+"))


def split_sentences(text: str, maximum: int, *, is_english: bool = True) -> Iterator[str]:
    """Yield the sentences of a text, cut into pieces of at most `maximum` characters.

    `is_english` is whether a text without Chinese and Japanese characters is English.
    """
    text = text if _ASIAN.search(text) or not is_english else spoken(text)
    readable = _DIGITS.sub(lambda digits: " ".join(digits[0]), text)
    for part in _OTHER_END.split(readable):
        for sentence in Hibari.split_sentences(part):
            yield from cut(" ".join(sentence.split()), maximum)


def cut(text: str, maximum: int) -> Iterator[str]:
    """Yield `text` in pieces of at most `maximum` characters.

    Each cut is after punctuation if possible, otherwise after a space if possible, otherwise anywhere.
    """
    while len(text) > maximum:
        end = next(
            (ends[-1] for pattern in _CUTS if (ends := [m.end() for m in pattern.finditer(text, 0, maximum)])), maximum
        )
        yield text[:end]
        text = text[end:]
    yield text
