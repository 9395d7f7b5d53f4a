"""Writes grammars in the engine's EBNF notation."""

from collections.abc import Iterable, Iterator

# Maximum length of a grammar. Compile time and memory grow with the length; longer grammars take seconds to compile.
MAX_CHARACTERS = 64_000

EMPTY = '""'

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
# The first characters that take two, three and four bytes in UTF-8.
_LONGER = (0x80, 0x800, 0x10000)

Ranges = list[tuple[int, int]]
"""A set of characters as ranges in ascending order; each range is its first and its last code point."""


class UnsupportedConstraint(Exception):
    """A constraint is invalid, or a grammar within the limits cannot express it. The message is for the client."""


class Rules:
    """The named rules of a grammar."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._size = 0

    def name(self, body: str, hint: str = "r") -> str:
        """Return the name of the rule with this body. If there is no such rule, add one whose name begins with `hint`.

        Raises UnsupportedConstraint if the grammar becomes too large.
        """
        if body not in self._names:
            self._names[body] = self.reserve(hint)
            self.fill(self._names[body], body)
        return self._names[body]

    def reserve(self, hint: str = "r") -> str:
        """Reserve and return a new rule name. A rule that refers to itself needs its name before its body."""
        name = f"{hint}{len(self._bodies)}"
        self._bodies[name] = ""
        return name

    def fill(self, name: str, body: str) -> None:
        """Give a reserved name its body. Raises UnsupportedConstraint if the grammar becomes too large."""
        self._bodies[name] = body
        self._size += len(name) + len(body)
        if self._size > MAX_CHARACTERS:
            raise UnsupportedConstraint(f"the resulting grammar exceeds the limit of {MAX_CHARACTERS} characters")

    def text(self, root: str) -> str:
        """Return the grammar, whose root rule is `root`. Raises UnsupportedConstraint if the grammar is too large."""
        lines = [f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._bodies.items())]
        text = "\n".join(lines) + "\n"
        if len(text) > MAX_CHARACTERS:
            raise UnsupportedConstraint(f"the resulting grammar exceeds the limit of {MAX_CHARACTERS} characters")
        return text


def literal(text: str) -> str:
    """Return the expression that matches exactly this text."""
    return '"' + "".join(map(_escaped, text)) + '"'


def any_of(expressions: Iterable[str]) -> str:
    """Return the expression that matches any one of these expressions; duplicates are dropped."""
    unique = list(dict.fromkeys(expressions))
    return unique[0] if len(unique) == 1 else "(" + " | ".join(unique) + ")"


def repeat(expression: str, minimum: int, maximum: int | None) -> str:
    """Return the expression for `minimum` to `maximum` (None: unlimited) repetitions of `expression`, a single term."""
    if (minimum, maximum) == (1, 1):
        return expression
    if (minimum, maximum) == (0, 1):
        return f"{expression}?"
    if maximum is None and minimum < 2:
        return expression + "*+"[minimum]
    return f"{expression}{{{minimum},{'' if maximum is None else maximum}}}"


def char_class(ranges: Ranges) -> str:
    """Return the expression that matches any character in `ranges`. Raises UnsupportedConstraint if there is none."""
    if not ranges:
        raise UnsupportedConstraint("an empty character set matches nothing")
    parts = [part for first, last in ranges for part in _of_one_length(first, last)]
    return "[" + "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in parts) + "]"


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the characters in `ranges` as ascending ranges that neither overlap nor touch."""
    result: Ranges = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all characters that are not in `ranges`, except surrogates."""
    result, start = [], 0
    for first, last in union([*ranges, _SURROGATES]):
        if first > start:
            result.append((start, first - 1))
        start = last + 1
    return [*result, (start, _LAST)] if start <= _LAST else result


def difference(ranges: Ranges, removed: Ranges) -> Ranges:
    """Return the characters of `ranges` that are not in `removed`."""
    return complement([*complement(ranges), *removed])


def _of_one_length(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield a range in parts whose characters have the same number of bytes.

    The engine's automata for other ranges sometimes allow bytes that are not UTF-8.
    """
    for start in _LONGER:
        if first < start <= last:
            yield first, start - 1
            first = start
    yield first, last


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() and ord(character) < 128 else _code(ord(character))


def _code(point: int) -> str:
    if chr(point).isalnum() and point < 128:
        return chr(point)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
