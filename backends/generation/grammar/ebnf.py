"""Writes grammars in the notation that the engine takes."""

from collections.abc import Iterable

# Compiling takes time and memory by the length; beyond this, seconds.
MAX_CHARACTERS = 64_000

EMPTY = '""'

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)

Ranges = list[tuple[int, int]]
"""A set of characters: first and last of each run, in order."""


class NotPossible(Exception):
    """Something the engine's grammars cannot say, or not within bounds; the message is for the caller."""


class Rules:
    """The named rules of a grammar."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._size = 0

    def name(self, body: str, hint: str = "r") -> str:
        """Return the name of the rule with this body, added if there is none yet."""
        if body not in self._names:
            self._names[body] = self.reserve(hint)
            self.fill(self._names[body], body)
        return self._names[body]

    def reserve(self, hint: str = "r") -> str:
        """Return a new name, for a rule that refers to itself."""
        name = f"{hint}{len(self._bodies)}"
        self._bodies[name] = ""
        return name

    def fill(self, name: str, body: str) -> None:
        """Give a reserved name its body. Raises NotPossible if the grammar gets too long."""
        self._bodies[name] = body
        self._size += len(name) + len(body)
        if self._size > MAX_CHARACTERS:
            raise NotPossible("too large")

    def text(self, root: str) -> str:
        """Return the grammar that begins with the expression `root`."""
        lines = [f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._bodies.items())]
        text = "\n".join(lines) + "\n"
        if len(text) > MAX_CHARACTERS:
            raise NotPossible("too large")
        return text


def literal(text: str) -> str:
    """Return the expression for exactly this text."""
    return '"' + "".join(map(_escaped, text)) + '"'


def any_of(expressions: Iterable[str]) -> str:
    """Return the expression for one of these, each named once."""
    unique = list(dict.fromkeys(expressions))
    return unique[0] if len(unique) == 1 else "(" + " | ".join(unique) + ")"


def repeat(expression: str, minimum: int, maximum: int | None) -> str:
    """Return the expression for so many repetitions; `expression` is one term."""
    if (minimum, maximum) == (1, 1):
        return expression
    if (minimum, maximum) == (0, 1):
        return f"{expression}?"
    if maximum is None and minimum < 2:
        return expression + "*+"[minimum]
    return f"{expression}{{{minimum},{'' if maximum is None else maximum}}}"


def char_class(ranges: Ranges) -> str:
    """Return the expression for one of these characters. Raises NotPossible if there are none."""
    if not ranges:
        raise NotPossible("a set of characters is empty")
    return "[" + "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in ranges) + "]"


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same set in order, without overlaps."""
    result: Ranges = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def inverted(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all other characters; surrogates are none."""
    result, begin = [], 0
    for first, last in merged([*ranges, _SURROGATES]):
        if first > begin:
            result.append((begin, first - 1))
        begin = last + 1
    return [*result, (begin, _LAST)] if begin <= _LAST else result


def without(ranges: Ranges, taken: Ranges) -> Ranges:
    """Return the characters of one set that are not in the other."""
    return inverted([*inverted(ranges), *taken])


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() and ord(character) < 128 else _code(ord(character))


def _code(point: int) -> str:
    if chr(point).isalnum() and point < 128:
        return chr(point)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
