"""Writes English text as it is spoken, where the libraries that read it would drop signs or misread numbers.

Numbers, dates, times and amounts such as `$5` are left to those libraries.
"""

import math
import re
import unicodedata

_GREEK_NAMES = re.compile(r"(?<![\u0370-\u03ff])[\u0370-\u03ff](?![\u0370-\u03ff])")

# Letters in other forms, such as 𝐀, Ａ and ﬁ.
_LETTER_FORMS = re.compile("[\U0001d400-\U0001d7ff\uff01-\uff5e\ufb00-\ufb06]")

_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(\S.*)$", re.MULTILINE)

_ADDRESS = re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,}\b")
_URL = re.compile(r"\b(?:https?|ftp)://[^\s<>\"]*[^\s<>\".,;:!?)\]}'*_]|\bwww\.[^\s<>\"]*[^\s<>\".,;:!?)\]}'*_]")
# A dot between lower-case words, as in `openai.com` and `file.txt`. Abbreviations such as `e.g.` have single letters.
_DOT = re.compile(r"(?<=[a-z0-9]{2})\.(?=[a-z]{2})")
_SPOKEN_IN_ADDRESSES = {
    **{".": "dot", "@": "at", "/": "slash", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals"},
    **{"&": "and", "#": "hash", "%": "percent", ":": "colon", "+": "plus", "~": "tilde"},
}
_WORD_DOMAINS = frozenset(("com", "org", "net", "gov", "dev", "app", "info", "blog", "shop", "online"))

_SPACES = " \u00a0\u2009\u202f"
# Groups of three digits. Ordinary spaces group only numbers with two or more groups, since `101 102` may be two
# numbers, and numbers with a currency or with round thousands.
_GROUPED_BY_SPACES = re.compile(
    r"(?<![\w.,])(?:[1-9]\d{0,2}(?:[\u00a0\u2009\u202f'’]\d{3})+|[1-9]\d?(?: \d{3}){2,}|[1-9]\d{0,2}(?: 000)+"
    rf"|[1-9]\d{{0,2}}(?: \d{{3}})+(?=[{_SPACES}]?[€$£¥]))(?![\w]|[{_SPACES}]\d)"
)
_GROUPED_BY_DOTS = re.compile(r"(?<![\w.,])\d{1,3}(?:\.\d{3}){2,}(?![\w.]\d)")
_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2})")
_DOTTED = re.compile(r"(?<![\d.])(v?)(\d+(?:\.\d+){2,})(?!\d)", re.IGNORECASE)

_CURRENCIES = "€$£¥₹₩₽₿"
_UNUSUAL = {"₹": "rupees", "₩": "won", "₽": "rubles", "₿": "bitcoins"}
_AMOUNT = r"\d+(?:[.,]\d+)*"
_COMMA_AMOUNT = re.compile(rf"([{_CURRENCIES}]\s?\d+),(\d{{1,2}})(?!\d)|(?<!\d)(\d+),(\d{{1,2}})(?=\s?[{_CURRENCIES}])")
_AMOUNT_BEFORE = re.compile(rf"(?<![{_CURRENCIES}\d.,])({_AMOUNT})[{_SPACES}]?([{_CURRENCIES}])(?!\d)")
_AMOUNT_BEHIND = re.compile(rf"([{_CURRENCIES}])[{_SPACES}]?({_AMOUNT})")

# What may stand beside an operator: a number, a parenthesis, or a variable of one letter. Only blanks are between them,
# so that bullets at the beginning of a line, and dashes and dots between words, are not operators.
_LEFT, _RIGHT = r"(?<![A-Za-z])(?:[A-Za-z]|\d[\d.,]*|[)\]π²³])", r"(?:[A-Za-z](?![A-Za-z])|[\d(\[π√])"
_BLANKS = r"[ \u00a0]{0,3}"


def _between(operator: str, left: str = _LEFT, right: str = _RIGHT) -> re.Pattern[str]:
    return re.compile(rf"({left}){_BLANKS}{operator}{_BLANKS}(?={right})")


_DIGIT = r"\d[\d.,]*"
_OPERATORS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_between("×"), " times "),
    (_between("[·⋅]"), " times "),
    (_between(r"\*"), " times "),
    (_between("[xX]", r"(?<![\w.])[1-9][\d.,]*", r"\d"), " times "),
    (_between("÷"), " divided by "),
    (re.compile(rf"({_DIGIT}|[)\]]) / (?=[\d(])"), " divided by "),
    (re.compile("()−"), " minus "),
    (_between(r"\^"), " to the power of "),
    (re.compile("()≤"), " is less than or equal to "),
    (re.compile("()≥"), " is greater than or equal to "),
    (re.compile("()≠"), " is not equal to "),
    (re.compile("()≈"), " is approximately "),
    (re.compile("()→"), " to "),
    (re.compile("()√"), " the square root of "),
    (re.compile("()∞"), " infinity "),
    (re.compile(r"()(?<![\w.])~ ?(?=\d)"), "about "),
    (re.compile(r"((?<![A-Za-z/])[A-Za-z]{1,40})/(?=[A-Za-z]{1,40}(?![A-Za-z/]))(?<!\band/)(?<!\bkm/)"), " slash "),
)
# In a line with an equals sign, a hyphen between blanks is a minus sign.
_MINUS = re.compile(rf"({_LEFT}) {{1,3}}- {{1,3}}(?={_RIGHT})|()(?<==)( ?)-(?= ?\d)|()(?<== )-(?=\d)")

# The libraries read only the first 24 letters of a word.
_LONG_WORD = re.compile(r"[^\W\d_]{25,}")
_PIECE = 20
_VOWELS = "aeiouyäöüáéíóúàèìòù"


def spoken(text: str) -> str:
    """Return an English text with all signs written as words, and with long words in pieces."""
    text = _LETTER_FORMS.sub(lambda form: unicodedata.normalize("NFKC", form[0]), text)
    text = _HEADING.sub(_heading, text)
    text = _ADDRESS.sub(lambda found: _address(found[0]), text)
    text = _URL.sub(lambda found: _address(found[0]), text)
    text = _DOT.sub(" dot ", text)
    text = _numbers(text)
    for pattern, words in _OPERATORS:
        text = pattern.sub(rf"\1{words}", text)
    text = "\n".join(_MINUS.sub(_minus, line) if "=" in line else line for line in text.split("\n"))
    text = _GREEK_NAMES.sub(_greek_name, text)
    return _LONG_WORD.sub(lambda word: " ".join(_pieces(word[0])), text)


def _heading(found: re.Match[str]) -> str:
    title = found[1].rstrip(" \t#")
    return f"{title}." if title[-1:].isalnum() else title


def _address(text: str) -> str:
    """Return a URL or an e-mail address as it is spoken."""
    scheme, separator, rest = text.rpartition("://")
    words = [" ".join(scheme.upper())] if separator else []
    user, at, host = rest.rpartition("@")
    host, slash, path = host.partition("/")
    if at:
        words += [*_address_words(user), "at"]
    for index, label in enumerate(host.split(".")):
        words += ["dot"] if index else []
        is_short = index > 0 and label.isalpha() and len(label) <= 3 and label.lower() not in _WORD_DOMAINS
        is_www = label.lower() == "www"
        words += [" ".join(label.upper())] if is_short or is_www else _address_words(label)
    return " ".join([*words, *(["slash"] if slash else []), *_address_words(path)])


def _address_words(text: str) -> list[str]:
    return [_SPOKEN_IN_ADDRESSES.get(part, part) for part in re.split(r"([^\w]|_)", text) if part.strip()]


def _numbers(text: str) -> str:
    text = _GROUPED_BY_SPACES.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _COMMA_AMOUNT.sub(lambda found: f"{found[1] or found[3]}.{found[2] or found[4]}", text)
    text = _DOTTED.sub(_dotted, text)
    text = _AMOUNT_BEFORE.sub(lambda found: _amount(found[2], found[1]), text)
    return _AMOUNT_BEHIND.sub(lambda found: _amount(found[1], found[2]), text)


def _dotted(found: re.Match[str]) -> str:
    """Return a version, an IP address or a number whose thousands are grouped by dots, as it is spoken."""
    version, number = found[1], found[2]
    if not version and _DATE.fullmatch(number):
        return number.replace(".", "/") if int(number.split(".")[0]) <= 12 else number.replace(".", " ")
    parts = number.split(".")
    is_address = len(parts) == 4 and all(int(part) <= 255 and str(int(part)) == part for part in parts)
    if not version and not is_address and _GROUPED_BY_DOTS.fullmatch(number):
        return number.replace(".", "")
    between = " dot " if is_address else " point "
    return (f"{version} " if version else "") + between.join(parts)


def _amount(currency: str, number: str) -> str:
    return f"{number} {_UNUSUAL[currency]}" if currency in _UNUSUAL else f"{currency}{number}"


def _minus(found: re.Match[str]) -> str:
    return f"{found[1] or ''} minus "


def _greek_name(found: re.Match[str]) -> str:
    name = unicodedata.name(found[0], "").split(" ")
    return f" {name[3].lower()} " if name[:1] == ["GREEK"] and "LETTER" in name and len(name) > 3 else found[0]


def _pieces(word: str) -> list[str]:
    """Return a word in pieces of about equal length, cut before a consonant that can begin a syllable."""
    count = math.ceil(len(word) / _PIECE)
    pieces: list[str] = []
    while count > 1:
        target = len(word) / count
        first = word[: _PIECE + 6].lower()
        starts = [i for i in range(4, min(len(word) - 3, _PIECE + 5)) if _begins_syllable(first, i)]
        cut = min(starts or [round(target)], key=lambda i: abs(i - target))
        pieces.append(word[:cut])
        word = word[cut:]
        count = math.ceil(len(word) / _PIECE)
    return [*pieces, word]


def _begins_syllable(word: str, index: int) -> bool:
    here, following = word[index], word[index + 1]
    return here not in _VOWELS and (following in _VOWELS or following in "hrl") and word[index - 1] not in "cspt"
