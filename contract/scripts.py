"""Finds out from the scripts of a text whether speech models of given languages can speak it.

Languages that share a script, such as those in Latin letters, cannot be told apart in this way.
"""

import re
import unicodedata
from collections.abc import Collection

# Script (the first word of a character's Unicode name) → codes of languages that are written in it. The letters of all
# other scripts are symbols, such as the Kelvin sign, or belong to languages that no model here speaks.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    "CJK": ("zh", "ja", "yue"),
    "IDEOGRAPHIC": ("zh", "ja", "yue"),
    "BOPOMOFO": ("zh",),
    "HIRAGANA": ("ja",),
    "KATAKANA": ("ja",),
    "KATAKANA-HIRAGANA": ("ja",),
    "HALFWIDTH": ("ja",),
    "HANGUL": ("ko",),
    "CYRILLIC": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "mn"),
    "GREEK": ("el",),
    "ARABIC": ("ar", "fa", "ur"),
    "HEBREW": ("he", "yi"),
    "DEVANAGARI": ("hi", "mr", "ne"),
    "THAI": ("th",),
    "LAO": ("lo",),
    "KHMER": ("km",),
    "MYANMAR": ("my",),
    "TIBETAN": ("bo",),
    "MONGOLIAN": ("mn",),
    "GEORGIAN": ("ka",),
    "ARMENIAN": ("hy",),
    "ETHIOPIC": ("am",),
    "BENGALI": ("bn", "as"),
    "GURMUKHI": ("pa",),
    "GUJARATI": ("gu",),
    "ORIYA": ("or",),
    "TAMIL": ("ta",),
    "TELUGU": ("te",),
    "KANNADA": ("kn",),
    "MALAYALAM": ("ml",),
    "SINHALA": ("si",),
}

# A Greek letter alone, as in formulas, is read as its name.
_GREEK_SYMBOL = re.compile(r"(?<![\u0370-\u03ff])[\u0370-\u03ff](?![\u0370-\u03ff])")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def can_speak(text: str, languages: Collection[str]) -> bool:
    """Return whether a model of these languages can speak all letters of a text."""
    return all(any(language in languages for language in _SCRIPTS[script]) for script in _scripts(text))


def _scripts(text: str) -> set[str]:
    """Return the scripts of the letters in a text that not every model can speak."""
    letters = {letter for letter in _NOT_ASCII.findall(_GREEK_SYMBOL.sub("", text)) if letter.isalpha()}
    return {script for letter in letters if (script := unicodedata.name(letter, "").split(" ")[0]) in _SCRIPTS}
