"""A long text in pieces that are spoken one after the other: sentences, and no piece too long for a model."""

import re
from collections.abc import Iterator

from hibari import Hibari

_CHINESE_END = re.compile(r"(?<=[。！？])")

# No model reads numbers of so many digits, nor does anybody.
_DIGITS = re.compile(r"\d{16,}")

# The best places to cut at, the best first.
_CUTS = (re.compile(r"[,;:—，；：、]\s*"), re.compile(r"\s+"))


def split_sentences(text: str, maximum: int) -> Iterator[str]:
    """Yield the sentences of `text`, with English and Chinese marks, those over `maximum` characters cut."""
    readable = _DIGITS.sub(lambda digits: " ".join(digits[0]), text)
    for part in _CHINESE_END.split(readable):
        for sentence in Hibari.split_sentences(part):
            yield from cut(" ".join(sentence.split()), maximum)


def cut(text: str, maximum: int) -> Iterator[str]:
    """Yield `text` in pieces of at most `maximum` characters: cut after punctuation, between words, or anywhere."""
    while len(text) > maximum:
        place = next(
            (ends[-1] for pattern in _CUTS if (ends := [m.end() for m in pattern.finditer(text, 0, maximum)])), maximum
        )
        yield text[:place]
        text = text[place:]
    yield text
