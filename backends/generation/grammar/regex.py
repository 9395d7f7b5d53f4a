"""Converts regular expressions to grammar expressions, for plain text and for JSON strings."""

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

from backends.generation.grammar.ebnf import (
    Ranges,
    UnsupportedConstraint,
    any_of,
    char_class,
    complement,
    difference,
    literal,
    repeat,
    union,
)

MAX_CHARACTERS = 4_000

# Maximum repetitions of a part of the pattern, and of a wide set of characters. The counts of nested repetitions are
# multiplied. For every counted repetition, the engine builds a table of all tokens, which is expensive if most tokens
# match.
MAX_REPEATS = 1_000
MAX_WIDE_REPEATS = 32
# Maximum number of parts that are optional or have a variable number of repetitions. The engine tracks all possible
# parses of a text at once, and each such part adds possible parses.
_MAX_VARIABLE_PARTS = 32
# A set of at least this many characters counts as wide. Most tokens match repetitions of such a set.
_WIDE_CHARACTERS = 128

# Names of the constructs that cannot be converted, for error messages.
_NAMES: dict[Any, str] = {
    sre.ASSERT: "a lookaround",
    sre.ASSERT_NOT: "a negative lookaround",
    sre.AT: "an anchor or word boundary",
    sre.GROUPREF: "a backreference",
    sre.GROUPREF_EXISTS: "a conditional group",
    sre.ATOMIC_GROUP: "an atomic group",
    sre.POSSESSIVE_REPEAT: "a possessive quantifier",
}

_CATEGORIES: dict[Any, Ranges] = {
    sre.CATEGORY_DIGIT: [(0x30, 0x39)],
    sre.CATEGORY_SPACE: [(0x09, 0x0D), (0x20, 0x20)],
    sre.CATEGORY_WORD: [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
_CATEGORIES |= {
    sre.CATEGORY_NOT_DIGIT: complement(_CATEGORIES[sre.CATEGORY_DIGIT]),
    sre.CATEGORY_NOT_SPACE: complement(_CATEGORIES[sre.CATEGORY_SPACE]),
    sre.CATEGORY_NOT_WORD: complement(_CATEGORIES[sre.CATEGORY_WORD]),
}
_BEGIN = {sre.AT_BEGINNING, sre.AT_BEGINNING_STRING}
_END = {sre.AT_END, sre.AT_END_STRING}
# Named groups in JavaScript's syntax, which JSON Schema uses. Escapes and sets match too, so that `(?<` inside
# them is left unchanged.
_GROUP_NAME = re.compile(r"(\\.|\[(?:\\.|[^\]])*\])|\(\?<(?![=!])")
# Characters that must be escaped in a JSON string.
_MUST_ESCAPE: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)]
_SHORT_ESCAPES = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}


def regex_grammar(pattern: str) -> str:
    """Return the grammar expression for text that fully matches the pattern.

    Raises UnsupportedConstraint if the pattern is invalid or not supported.
    """
    _, body, _ = _parse(pattern)
    return _Writer(in_json=False).sequence(body)


def json_pattern(pattern: str) -> str:
    """Return the grammar expression for the inside of a JSON string that contains a match of the pattern.

    Raises UnsupportedConstraint if the pattern is invalid or not supported.
    """
    begins, body, ends = _parse(pattern)
    writer = _Writer(in_json=True)
    around = f"{writer.characters(complement([]))}*"
    return " ".join([*([] if begins else [around]), writer.sequence(body), *([] if ends else [around])])


def text_pattern(pattern: str) -> str:
    """Return the grammar expression for text that contains a match of the pattern. Raises UnsupportedConstraint."""
    begins, body, ends = _parse(pattern)
    writer = _Writer(in_json=False)
    around = f"{writer.characters(complement([]))}*"
    return " ".join([*([] if begins else [around]), writer.sequence(body), *([] if ends else [around])])


def json_characters(minimum: int, maximum: int | None) -> str:
    """Return the grammar expression for the inside of a JSON string of `minimum` to `maximum` characters.

    A `maximum` of None means no maximum. Raises UnsupportedConstraint if `minimum` or `maximum` exceeds its limit.
    """
    if maximum is not None and maximum > MAX_WIDE_REPEATS:
        raise UnsupportedConstraint(f"'maxLength' above {MAX_WIDE_REPEATS} is not supported")
    return any_length(minimum, maximum)


def any_length(minimum: int, maximum: int | None) -> str:
    """Return the same as `json_characters`, but without a limit for `maximum` other than MAX_REPEATS."""
    if max(minimum, maximum or 0) > MAX_REPEATS:
        raise UnsupportedConstraint(f"'minLength' or 'maxLength' above {MAX_REPEATS} is not supported")
    return repeat(f"({_Writer(in_json=True).characters(complement([]))})", minimum, maximum)


def _parse(pattern: str) -> tuple[bool, list[Any], bool]:
    """Return three values: whether a pattern begins with an anchor, its body, and whether it ends with an anchor.

    The body does not include these two anchors.
    """
    if len(pattern) > MAX_CHARACTERS:
        raise UnsupportedConstraint(f"the pattern exceeds the limit of {MAX_CHARACTERS} characters")
    try:
        parsed = parser.parse(_GROUP_NAME.sub(lambda found: found[1] or "(?P<", pattern))
    except (re.error, OverflowError) as error:
        raise UnsupportedConstraint(f"invalid regular expression: {error}") from error
    except RecursionError as error:
        raise UnsupportedConstraint("the pattern is nested too deeply") from error
    if parsed.state.flags & ~sre.SRE_FLAG_UNICODE:
        raise UnsupportedConstraint("flags are not supported")
    body = list(parsed)
    begins = bool(body) and body[0][0] is sre.AT and body[0][1] in _BEGIN
    ends = bool(body) and body[-1][0] is sre.AT and body[-1][1] in _END
    return begins, body[begins : len(body) - (ends and len(body) > begins)], ends


class _Writer:
    """Writes a parsed pattern as a grammar expression. With `in_json`, characters are escaped as in a JSON string."""

    def __init__(self, in_json: bool):
        self._in_json, self._repeats = in_json, 1
        self._variable_parts = 0

    def sequence(self, items: Any) -> str:
        return " ".join(self._item(*item) for item in items) or '""'

    def characters(self, ranges: Ranges) -> str:
        """Return the grammar expression that matches one of these characters."""
        if sum(last - first + 1 for first, last in ranges) >= _WIDE_CHARACTERS:
            self._check_repeats(MAX_WIDE_REPEATS)
        if not self._in_json:
            return char_class(ranges)
        plain = difference(ranges, _MUST_ESCAPE)
        escaped = [code for code in _SHORT_ESCAPES if any(first <= code <= last for first, last in ranges)]
        options = [char_class(plain)] if plain else []
        if escaped:
            options.append(
                f"{literal(chr(0x5C))} {char_class(union((ord(_SHORT_ESCAPES[code]),) * 2 for code in escaped))}"
            )
        return any_of(options or [char_class([])])

    def _item(self, kind: Any, value: Any) -> str:
        if kind is sre.LITERAL:
            return self.characters([(value, value)])
        if kind is sre.NOT_LITERAL:
            return self.characters(complement([(value, value)]))
        if kind is sre.ANY:
            return self.characters(complement([(0x0A, 0x0A)]))
        if kind is sre.IN:
            return self.characters(self._set(value))
        if kind is sre.BRANCH:
            return any_of(["(" + self.sequence(branch) + ")" for branch in value[1]])
        if kind is sre.SUBPATTERN:
            _, added, removed, body = value
            if added or removed:
                raise UnsupportedConstraint("flags are not supported")
            return f"({self.sequence(body)})"
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return self._repeat(*value)
        raise UnsupportedConstraint(f"{_NAMES.get(kind, 'this construct')} is not supported here")

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
        return complement(ranges) if negated else union(ranges)

    def _repeat(self, minimum: int, maximum: Any, body: Any) -> str:
        upper = None if maximum is sre.MAXREPEAT else int(maximum)
        self._variable_parts += upper != minimum
        if self._variable_parts > _MAX_VARIABLE_PARTS:
            raise UnsupportedConstraint(f"too many optional or repeated parts (limit {_MAX_VARIABLE_PARTS})")
        outer, counted = self._repeats, max(minimum, upper or 0)
        # A repetition without a maximum is cheap for the engine, unless it is inside a counted repetition.
        self._repeats = outer * max(1, counted) if upper != 1 else outer
        self._check_repeats(MAX_REPEATS)
        if upper is None and outer == 1:
            self._repeats = 1
        inner = self.sequence(body)
        self._repeats = outer
        return repeat(f"({inner})", minimum, upper)

    def _check_repeats(self, maximum: int) -> None:
        if self._repeats > maximum:
            raise UnsupportedConstraint(f"too many repetitions (limit {maximum})")
