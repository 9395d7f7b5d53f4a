"""Splits a text into sentences, and sentences into pieces that are short enough for a model."""

import re
from collections.abc import Iterator

from hibari import Hibari

_CHINESE_END = re.compile(r"(?<=[。！？])")

# A run of 16 or more digits is too long to be read as a number, so it is split to be read digit by digit.
_DIGITS = re.compile(r"\d{16,}")

# The places where a text may be cut, in order of preference.
_CUTS = (re.compile(r"[,;:—，；：、]\s*"), re.compile(r"\s+"))


def split_sentences(text: str, maximum: int) -> Iterator[str]:
    """Yield the sentences of an English, Chinese or Japanese text, cut into pieces of at most `maximum` characters."""
    readable = _DIGITS.sub(lambda digits: " ".join(digits[0]), text)
    for part in _CHINESE_END.split(readable):
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
