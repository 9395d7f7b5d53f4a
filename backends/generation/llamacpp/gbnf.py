"""Translates grammars to GBNF, llama.cpp's notation.

The notations are alike, but GBNF's names have no underscores, and llama.cpp limits counts and their nesting.
"""

import re
from collections.abc import Iterator

from backends.generation.grammar.ebnf import UnsupportedConstraint, char_class, literal
from backends.generation.grammar.nodes import (
    CharacterClass,
    Choice,
    Literal,
    Node,
    Reference,
    Repeat,
    all_nodes,
    join_options,
    parse,
)

# llama.cpp writes a part with a count as that many rules, and allows 2,000. A larger count becomes two smaller ones.
_MAX_COUNT = 256
_MAX_NESTING = 100

_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\\n])*\])|#[^\n]*')
_RULE = re.compile(r"^[ \t]*([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*::=", re.MULTILINE)


def to_gbnf(grammar: str) -> str:
    """Return a grammar in GBNF. Raises UnsupportedConstraint if the grammar is invalid."""
    rules = dict(_rules(grammar))
    if "root" not in rules:
        raise UnsupportedConstraint("the grammar has no rule named 'root'")
    writer = _Writer(rules)
    return "\n".join(writer.lines()) + "\n"


def _rules(grammar: str) -> Iterator[tuple[str, Choice]]:
    text = _COMMENT.sub(lambda found: found[1] or "", grammar)
    starts = list(_RULE.finditer(text))
    if not starts or text[: starts[0].start()].strip():
        raise UnsupportedConstraint('the grammar must consist of rules such as \'root ::= "yes" | "no"\'')
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        body = text[start.end() : following.start() if following else len(text)]
        if _nesting(body) > _MAX_NESTING:
            raise UnsupportedConstraint(f"the rule '{start[1][:80]}' is nested deeper than {_MAX_NESTING} levels")
        try:
            yield start[1], parse(body)
        except ValueError as error:
            raise UnsupportedConstraint(f"the rule '{start[1][:80]}' is invalid: {str(error)[:200]}") from error


def _nesting(body: str) -> int:
    depth = deepest = 0
    for character in re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', "", body):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


class _Writer:
    def __init__(self, rules: dict[str, Choice]):
        self._rules = rules
        self._names = {"root": "root"}
        self._parts: dict[Node, str] = {}
        self._extra: list[str] = []

    def lines(self) -> list[str]:
        for node in self._rules.values():
            for part in all_nodes(node):
                if isinstance(part, Reference) and part.name not in self._rules:
                    raise UnsupportedConstraint(f"the grammar has no rule named '{part.name[:80]}'")
        lines = [f"{self._name(name)} ::= {self._text(node)}" for name, node in self._rules.items()]
        return lines + self._extra

    def _name(self, name: str) -> str:
        return self._names.setdefault(name, f"r{len(self._names)}")

    def _text(self, node: Node) -> str:
        match node:
            case Literal(text):
                return literal(text)
            case CharacterClass(ranges):
                return char_class(list(ranges))
            case Reference(name):
                return self._name(name)
            case Choice(options):
                return join_options([" ".join(map(self._text, option)) for option in options])
            case Repeat(part, minimum, maximum):
                return self._repeated(self._single(part), minimum, maximum)

    def _single(self, node: Node) -> str:
        """Return the text of a node that can be counted: llama.cpp multiplies the counts in such a text."""
        while isinstance(node, Choice) and len(node.options) == 1 and len(node.options[0]) == 1:
            node = node.options[0][0]
        if isinstance(node, CharacterClass | Reference):
            return self._text(node)
        if node not in self._parts:
            self._parts[node] = f"p{len(self._parts)}"
            self._extra.append(f"{self._parts[node]} ::= {self._text(node)}")
        return self._parts[node]

    def _repeated(self, part: str, minimum: int, maximum: int | None) -> str:
        if maximum is None:
            return f"{self._exactly(part, minimum)} {part}*" if minimum else f"{part}*"
        return f"{self._exactly(part, minimum)} {self._at_most(part, maximum - minimum)}"

    def _exactly(self, part: str, count: int) -> str:
        if count <= _MAX_COUNT:
            return f"{part}{{{count}}}" if count else '""'
        block = self._rule(f"{part}{{{_MAX_COUNT}}}")
        return f"{self._exactly(block, count // _MAX_COUNT)} {self._exactly(part, count % _MAX_COUNT)}"

    def _at_most(self, part: str, count: int) -> str:
        """Return the text for 0 to `count` parts: a number of full blocks, and then at most the rest plus one block."""
        if count <= _MAX_COUNT:
            return f"{part}{{0,{count}}}" if count else '""'
        block = self._rule(f"{part}{{{_MAX_COUNT}}}")
        blocks, rest = divmod(count, _MAX_COUNT)
        # Fewer blocks, followed by any number of parts below a block, or all blocks and the rest.
        fewer = f"{self._at_most(block, blocks - 1)} {part}{{0,{_MAX_COUNT - 1}}}"
        return f"({fewer} | {self._exactly(block, blocks)} {self._at_most(part, rest)})"

    def _rule(self, body: str) -> str:
        name = f"c{len(self._extra)}"
        self._extra.append(f"{name} ::= {body}")
        return name
