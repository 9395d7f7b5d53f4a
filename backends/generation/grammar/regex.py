"""Regular expressions as grammars, as they are and inside of JSON strings."""

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

from backends.generation.grammar.ebnf import (
    NotPossible,
    Ranges,
    any_of,
    char_class,
    inverted,
    literal,
    merged,
    repeat,
    without,
)

MAX_CHARACTERS = 4_000

# The engine makes a table of all tokens for every repetition that is counted: dear where most tokens fit.
MAX_REPEATS = 1_000
MAX_WIDE_REPEATS = 32
# Parts that may be there or not, or any number of times: the engine follows all ways to read a text at once.
_MAX_LOOSE = 32
_WIDE = 128

_CATEGORIES: dict[Any, Ranges] = {
    sre.CATEGORY_DIGIT: [(0x30, 0x39)],
    sre.CATEGORY_SPACE: [(0x09, 0x0D), (0x20, 0x20)],
    sre.CATEGORY_WORD: [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
_CATEGORIES |= {
    sre.CATEGORY_NOT_DIGIT: inverted(_CATEGORIES[sre.CATEGORY_DIGIT]),
    sre.CATEGORY_NOT_SPACE: inverted(_CATEGORIES[sre.CATEGORY_SPACE]),
    sre.CATEGORY_NOT_WORD: inverted(_CATEGORIES[sre.CATEGORY_WORD]),
}
_BEGIN = {sre.AT_BEGINNING, sre.AT_BEGINNING_STRING}
_END = {sre.AT_END, sre.AT_END_STRING}
# JavaScript's way to name a group, which JSON Schema has.
_GROUP_NAME = re.compile(r"(\\.|\[(?:\\.|[^\]])*\])|\(\?<(?![=!])")
# What a JSON string cannot have as it is.
_SPECIAL: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)]
_SHORT = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}


def regex_grammar(pattern: str) -> str:
    """Return the expression for a text that matches as a whole. Raises NotPossible."""
    _, body, _ = _parse(pattern)
    return _Writer(in_json=False).sequence(body)


def json_pattern(pattern: str) -> str:
    """Return the expression for the inside of a JSON string in which the pattern is found. Raises NotPossible."""
    begins, body, ends = _parse(pattern)
    writer = _Writer(in_json=True)
    around = f"{writer.characters(inverted([]))}*"
    return " ".join([*([] if begins else [around]), writer.sequence(body), *([] if ends else [around])])


def json_characters(minimum: int, maximum: int | None) -> str:
    """Return the expression for the inside of a JSON string of so many characters. Raises NotPossible."""
    if maximum is not None and maximum > MAX_WIDE_REPEATS:
        raise NotPossible(f"at most {MAX_WIDE_REPEATS} characters can be counted")
    if minimum > MAX_REPEATS:
        raise NotPossible(f"at least {MAX_REPEATS} characters cannot be asked for")
    return repeat(_Writer(in_json=True).characters(inverted([])), minimum, maximum)


def _parse(pattern: str) -> tuple[bool, list[Any], bool]:
    """Return the parsed pattern without the anchors at its two ends, and whether it had them."""
    if len(pattern) > MAX_CHARACTERS:
        raise NotPossible(f"longer than {MAX_CHARACTERS} characters")
    try:
        parsed = parser.parse(_GROUP_NAME.sub(lambda found: found[1] or "(?P<", pattern))
    except (re.error, OverflowError) as error:
        raise NotPossible(f"not a regular expression: {error}") from error
    except RecursionError as error:
        raise NotPossible("nested too deeply") from error
    if parsed.state.flags & ~sre.SRE_FLAG_UNICODE:
        raise NotPossible("flags are not supported")
    body = list(parsed)
    begins = bool(body) and body[0][0] is sre.AT and body[0][1] in _BEGIN
    ends = bool(body) and body[-1][0] is sre.AT and body[-1][1] in _END
    return begins, body[begins : len(body) - (ends and len(body) > begins)], ends


class _Writer:
    """Writes a parsed pattern; in JSON, characters are escaped as a string's are."""

    def __init__(self, in_json: bool):
        self._in_json, self._wide, self._repeats = in_json, False, 1
        self._loose = 0

    def sequence(self, items: Any) -> str:
        return " ".join(self._item(*item) for item in items) or '""'

    def characters(self, ranges: Ranges) -> str:
        """Return the expression for one of these characters."""
        if sum(last - first + 1 for first, last in ranges) >= _WIDE:
            self._check_repeats(MAX_WIDE_REPEATS)
        if not self._in_json:
            return char_class(ranges)
        plain = without(ranges, _SPECIAL)
        escaped = [code for code in _SHORT if any(first <= code <= last for first, last in ranges)]
        options = [char_class(plain)] if plain else []
        if escaped:
            options.append(f"{literal(chr(0x5C))} {char_class(merged((ord(_SHORT[code]),) * 2 for code in escaped))}")
        return any_of(options or [char_class([])])

    def _item(self, kind: Any, value: Any) -> str:
        if kind is sre.LITERAL:
            return self.characters([(value, value)])
        if kind is sre.NOT_LITERAL:
            return self.characters(inverted([(value, value)]))
        if kind is sre.ANY:
            return self.characters(inverted([(0x0A, 0x0A)]))
        if kind is sre.IN:
            return self.characters(self._set(value))
        if kind is sre.BRANCH:
            return any_of(["(" + self.sequence(branch) + ")" for branch in value[1]])
        if kind is sre.SUBPATTERN:
            _, added, removed, body = value
            if added or removed:
                raise NotPossible("flags are not supported")
            return f"({self.sequence(body)})"
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return self._repeat(*value)
        raise NotPossible(f"{str(kind).lower().replace('_', ' ')} is not supported here")

    def _set(self, members: Any) -> Ranges:
        ranges: list[tuple[int, int]] = []
        for kind, value in members:
            if kind is sre.LITERAL:
                ranges.append((value, value))
            elif kind is sre.RANGE:
                ranges.append(value)
            elif kind is sre.CATEGORY:
                ranges += _CATEGORIES[value]
        negated = members[0][0] is sre.NEGATE
        return inverted(ranges) if negated else merged(ranges)

    def _repeat(self, minimum: int, maximum: Any, body: Any) -> str:
        top = None if maximum is sre.MAXREPEAT else int(maximum)
        self._loose += top != minimum
        if self._loose > _MAX_LOOSE:
            raise NotPossible(f"more than {_MAX_LOOSE} optional or repeated parts are not supported")
        outer, counted = self._repeats, max(minimum, top or 0)
        # A minimum alone is cheap for the engine, unless it is inside of something that is counted.
        self._repeats = outer * max(1, counted) if top != 1 else outer
        self._check_repeats(MAX_REPEATS)
        if top is None and outer == 1:
            self._repeats = 1
        inner = self.sequence(body)
        self._repeats = outer
        return repeat(f"({inner})", minimum, top)

    def _check_repeats(self, maximum: int) -> None:
        if self._repeats > maximum:
            raise NotPossible(f"more than {maximum} repetitions are not supported here")
