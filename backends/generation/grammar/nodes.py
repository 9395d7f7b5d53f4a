"""Parses the expressions that ebnf.py writes, and writes them again."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backends.generation.grammar.ebnf import EMPTY, Ranges, char_class, complement, literal, repeat, union

_TOKEN = re.compile(
    r'\s+|("(?:\\.|[^"\\])*")|(\[(?:\\.|[^\]\\])*\])|([A-Za-z_][A-Za-z0-9_.-]*)|([*+?]|\{\d+(?:,\d*)?\})|([()|])|(\.)'
)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})|\\x([0-9a-fA-F]{2})|\\(.)|(.)", re.DOTALL)
_SHORT_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Literal:
    """Exactly this text."""

    text: str


@dataclass(frozen=True)
class CharacterClass:
    """One of these characters."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Reference:
    """The texts of another rule."""

    name: str


@dataclass(frozen=True)
class Repeat:
    """From `minimum` to `maximum` (None: unlimited) texts of `part`."""

    part: "Node"
    minimum: int
    maximum: int | None


@dataclass(frozen=True)
class Choice:
    """One of `options`."""

    options: "tuple[tuple[Node, ...], ...]"
    """Each option is a sequence."""


Node = Literal | CharacterClass | Reference | Repeat | Choice


def parse(text: str) -> Choice:
    """Return the node of an expression. Raises ValueError for syntax that ebnf.py does not write."""
    tokens = list(_tokens(text))
    node, end = _parse_choice(tokens, 0)
    if end != len(tokens):
        raise ValueError("unbalanced parentheses")
    return node


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise ValueError(f"unknown syntax: {text[position : position + 40]}")
        position = found.end()
        if found.lastindex:
            yield found[0]


def _parse_choice(tokens: Sequence[str], position: int) -> tuple[Choice, int]:
    options: list[tuple[Node, ...]] = []
    sequence: list[Node] = []
    while position < len(tokens) and tokens[position] != ")":
        term = tokens[position]
        position += 1
        if term == "|":
            options.append(tuple(sequence))
            sequence = []
            continue
        node: Node
        if term == "(":
            node, position = _parse_choice(tokens, position)
            if position == len(tokens):
                raise ValueError("unbalanced parentheses")
            position += 1
        else:
            node = _parse_term(term)
        while position < len(tokens) and tokens[position][0] in "*+?{":
            node = Repeat(node, *_bounds(tokens[position]))
            position += 1
        sequence.append(node)
    options.append(tuple(sequence))
    return Choice(tuple(options)), position


def _parse_term(term: str) -> Node:
    if term.startswith('"'):
        return Literal("".join(_characters(term[1:-1])))
    if term.startswith("["):
        return CharacterClass(tuple(_parse_class(term[1:-1])))
    if term == ".":
        return CharacterClass(tuple(complement([])))
    if term[0] in "*+?{":
        raise ValueError("nothing to repeat")
    return Reference(term)


def _characters(text: str) -> Iterator[str]:
    for found in _ESCAPE.finditer(text):
        code = found[1] or found[2] or found[3]
        if code:
            yield chr(int(code, 16))
        else:
            yield _SHORT_ESCAPES.get(found[4], found[4]) if found[4] else found[5]


def _parse_class(body: str) -> Ranges:
    is_negated = body.startswith("^")
    parts = [found[0] for found in _ESCAPE.finditer(body[is_negated:])]
    points = [ord(next(_characters(part))) for part in parts]
    ranges, position = [], 0
    while position < len(points):
        if position + 2 < len(points) and parts[position + 1] == "-":
            ranges.append((points[position], points[position + 2]))
            position += 3
        else:
            ranges.append((points[position], points[position]))
            position += 1
    return complement(ranges) if is_negated else union(ranges)


def _bounds(quantifier: str) -> tuple[int, int | None]:
    if quantifier in ("*", "+", "?"):
        return int(quantifier == "+"), 1 if quantifier == "?" else None
    minimum, comma, maximum = quantifier[1:-1].partition(",")
    return int(minimum), int(maximum) if maximum else None if comma else int(minimum)


def all_nodes(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes in it."""
    yield node
    match node:
        case Repeat(part):
            yield from all_nodes(part)
        case Choice(options):
            for option in options:
                for part in option:
                    yield from all_nodes(part)


def text_of(node: Node) -> str:
    """Return the expression of a node."""
    match node:
        case Literal(text):
            return literal(text)
        case CharacterClass(ranges):
            return char_class(list(ranges))
        case Reference(name):
            return name
        case Repeat(part, minimum, maximum):
            return repeat(f"({text_of(part)})", minimum, maximum)
        case Choice(options):
            return join_options([" ".join(map(text_of, option)) for option in options])


def join_options(options: list[str]) -> str:
    """Return the expression for any one of the options; an empty option is the empty text."""
    return "(" + " | ".join(option or EMPTY for option in options) + ")"
