"""Rewrites a grammar so that its rules without references are deterministic.

The engine's compiler merges two kinds of states of a rule's automaton in one pass: states with the same past, and
states with the same future. That is wrong if a state belongs to both kinds. The compiled grammar then accepts texts
that the grammar does not, for example other combinations of the parts of an enum's strings. In a deterministic
automaton no two states have the same past, so only correct merging is left.

Rules with references (objects, arrays) compile correctly without this. A group of alternatives without references in
such a rule does not, so it becomes a rule of its own.
"""

import re
from collections.abc import Iterator, Sequence

from backends.generation.grammar.automaton import Deterministic, Nondeterministic, TooManyStates
from backends.generation.grammar.ebnf import EMPTY, Ranges, Rules, UnsupportedConstraint, char_class, literal, repeat
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
    text_of,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LAST_ASCII = 0x7F
# A rule with larger counts, such as a string of at most 1,000 characters, stays as it is, as do the rules after this
# many characters of rewritten rules. Otherwise, the rewritten grammar would be far larger than the original.
_MAX_COUNT = 64
_MAX_CHARACTERS = 500_000

# A larger intersection would leave too little of a grammar's limit for the rest of a schema.
_MAX_COMMON_CHARACTERS = 12_000


def deterministic(grammar: str) -> str:
    """Return a grammar for the same texts, one rule per line.

    A rule whose automaton would be too large stays as it is. Raises ValueError if the grammar's syntax is not the one
    that ebnf.py writes.
    """
    rules: dict[str, Choice] = {}
    for line in grammar.strip().splitlines():
        name, separator, body = line.partition("::=")
        if not separator or not _NAME.fullmatch(name.strip()):
            raise ValueError(f"not a rule: {line[:80]}")
        rules[name.strip()] = parse(body)
    lines: list[str] = []
    size = 0
    for name, node in rules.items():
        prefix = f"{name}_"
        while any(other.startswith(prefix) for other in rules):
            prefix += "_"
        new = [f"{name} ::= {text_of(node)}"] if size > _MAX_CHARACTERS else _rewritten(name, prefix, node)
        size += sum(map(len, new))
        lines += new
    return "\n".join(lines) + "\n"


def intersection(rules: Rules, one: str, other: str) -> str:
    """Return the name of a new rule for the texts that match both expressions, which must not have references.

    Raises UnsupportedConstraint if there is no such text, or if the rule would be too large.
    """
    too_large = UnsupportedConstraint("this combination of 'pattern' or 'format' with a length is too large")
    try:
        automata = [_automaton(parse(expression)) for expression in (one, other)]
        common = automata[0].intersection(automata[1]).minimal()
    except TooManyStates:
        raise too_large from None
    if not common.final:
        raise UnsupportedConstraint("no text has both the length and the 'pattern' or 'format'")
    name = rules.reserve("both")
    lines = list(_Writer(common, name, f"{name}_").rules())
    if sum(map(len, lines)) > _MAX_COMMON_CHARACTERS:
        raise too_large
    for line in lines:
        rule, _, body = line.partition(" ::= ")
        rules.fill(rule, body)
    return name


def _rewritten(name: str, prefix: str, node: Choice) -> list[str]:
    """Return the lines of a rule; the names of new rules begin with `prefix`."""
    if not _has_reference(node):
        return _rules(name, prefix, node) or [f"{name} ::= {text_of(node)}"]
    lines: list[str] = []
    text = _text_with_rules(node, prefix, lines)
    return [f"{name} ::= {text}", *lines]


def _text_with_rules(node: Node, prefix: str, lines: list[str]) -> str:
    """Return the node's text, in which each group of alternatives without references is a reference to a new rule."""
    match node:
        case Choice(options) if len(options) > 1 and not _has_reference(node):
            group = f"{prefix}i{len(lines)}"
            if rules := _rules(group, f"{group}_", node):
                lines += rules
                return group
        case Choice(options):
            return join_options(
                [" ".join(_text_with_rules(part, prefix, lines) for part in option) for option in options]
            )
        case Repeat(part, minimum, maximum):
            return repeat(f"({_text_with_rules(part, prefix, lines)})", minimum, maximum)
    return text_of(node)


def _rules(name: str, prefix: str, node: Node) -> list[str]:
    """Return the rules of the deterministic automaton for a node without references; none if it would be too large."""
    if _has_large_count(node):
        return []
    try:
        return list(_Writer(_automaton(node).minimal(), name, prefix).rules())
    except TooManyStates:
        return []


def _automaton(node: Node) -> Deterministic:
    """Return the automaton of a node without references. Raises TooManyStates."""
    automaton = Nondeterministic()
    return automaton.deterministic(_add(automaton, node, 0))


def _has_reference(node: Node) -> bool:
    return any(isinstance(each, Reference) for each in all_nodes(node))


def _has_large_count(node: Node) -> bool:
    repeats = (each for each in all_nodes(node) if isinstance(each, Repeat))
    return any(max(each.minimum, each.maximum or 0) > _MAX_COUNT for each in repeats)


# From a node to an automaton.


def _add(automaton: Nondeterministic, node: Node, state: int) -> int:
    """Add the node's texts after `state`; return the state in which they end."""
    match node:
        case Literal(text):
            for character in text:
                state, source = automaton.new_state(), state
                automaton.connect(source, state, [(ord(character), ord(character))])
            return state
        case CharacterClass(ranges):
            end = automaton.new_state()
            automaton.connect(state, end, list(ranges))
            return end
        case Choice(options):
            end = automaton.new_state()
            for option in options:
                current = automaton.new_state()
                automaton.connect(state, current)
                for part in option:
                    current = _add(automaton, part, current)
                automaton.connect(current, end)
            return end
        case Repeat(part, minimum, maximum):
            for _ in range(minimum):
                state = _add(automaton, part, state)
            return _add_optional(automaton, part, None if maximum is None else maximum - minimum, state)
        case Reference(name):
            raise ValueError(f"a reference: {name}")


def _add_optional(automaton: Nondeterministic, part: Node, count: int | None, state: int) -> int:
    """Add up to `count` (None: any number of) repetitions of a part; return the state in which they end."""
    end = automaton.new_state()
    if count is None:
        start = automaton.new_state()
        automaton.connect(state, start)
        automaton.connect(_add(automaton, part, start), start)
        automaton.connect(start, end)
        return end
    automaton.connect(state, end)
    for _ in range(count):
        state = _add(automaton, part, state)
        automaton.connect(state, end)
    return end


# From an automaton to rules.


class _Writer:
    """Writes the rules of an automaton: one for each state with several ways in or out, or in which a text may end.

    The states between them become literals and classes. Transitions from a state to itself become a star. Alternatives
    begin with different characters. Since characters beyond ASCII share their first byte in UTF-8, on which the engine
    works, each alternative that begins with such characters is a rule of its own if there are several; that rule ends
    with a reference, because the engine would inline it otherwise.
    """

    def __init__(self, automaton: Deterministic, name: str, prefix: str):
        self._name, self._prefix, self._final = name, prefix, automaton.final
        self._loops: list[Ranges] = [
            [(first, last) for first, last, target in each if target == state]
            for state, each in enumerate(automaton.transitions)
        ]
        self._out = [
            [(first, last, target) for first, last, target in each if target != state]
            for state, each in enumerate(automaton.transitions)
        ]
        ways_in = [0] * len(self._out)
        for each in self._out:
            for _, _, target in each:
                ways_in[target] += 1
        self._has_rule = {0} | {
            state
            for state, each in enumerate(self._out)
            if (each or self._loops[state])
            and (ways_in[state] > 1 or len(each) > 1 or state in self._final or self._loops[state])
        }
        self._is_start_reached = ways_in[0] > 0
        self._own_rules = 0
        self._needs_end = False

    def rules(self) -> Iterator[str]:
        """Yield the rules. The start has the given name."""
        if self._is_start_reached:
            yield f"{self._name} ::= {self._rule_name(0)}"
        for state in sorted(self._has_rule):
            yield from self._rules_of(state)
        if self._needs_end:
            yield f"{self._prefix}end ::= {EMPTY}"

    def _rule_name(self, state: int) -> str:
        return self._name if state == 0 and not self._is_start_reached else f"{self._prefix}{state}"

    def _rules_of(self, state: int) -> Iterator[str]:
        alternatives = []
        groups = list(self._groups(state))
        several_wide = sum(is_wide for _, _, is_wide in groups) > 1
        for target, characters, is_wide in groups:
            alternative = self._path(characters, target, must_end_with_reference=is_wide and several_wide)
            if is_wide and several_wide:
                self._own_rules += 1
                own = f"{self._prefix}m{self._own_rules}"
                yield f"{own} ::= {alternative}"
                alternative = own
            alternatives.append(alternative)
        if state in self._final:
            alternatives.append(EMPTY)
        body = " | ".join(alternatives)
        if self._loops[state]:
            star = f"{char_class(self._loops[state])}*"
            if alternatives == [EMPTY]:
                body = star
            else:
                after = f"{self._prefix}x{state}"
                yield f"{after} ::= {body}"
                body = f"{star} {after}"
        yield f"{self._rule_name(state)} ::= {body}"

    def _groups(self, state: int) -> Iterator[tuple[int, Ranges, bool]]:
        """Yield the transitions by target, ASCII characters apart from wide ones: target, characters, are they wide."""
        by_target: dict[int, Ranges] = {}
        for first, last, target in self._out[state]:
            by_target.setdefault(target, []).append((first, last))
        for target, ranges in by_target.items():
            ascii_part = [(first, min(last, _LAST_ASCII)) for first, last in ranges if first <= _LAST_ASCII]
            wide_part = [(max(first, _LAST_ASCII + 1), last) for first, last in ranges if last > _LAST_ASCII]
            if ascii_part:
                yield target, ascii_part, False
            if wide_part:
                yield target, wide_part, True

    def _path(self, characters: Ranges, target: int, must_end_with_reference: bool) -> str:
        """Return the text from a transition to the next state with a rule, or to the end."""
        steps = [characters]
        while target not in self._has_rule and self._out[target]:
            ((first, last, following),) = self._out[target]
            steps.append([(first, last)])
            target = following
        terms = list(_terms(steps))
        if target in self._has_rule:
            terms.append(self._rule_name(target))
        elif must_end_with_reference:
            self._needs_end = True
            terms.append(f"{self._prefix}end")
        return " ".join(terms)


def _terms(steps: Sequence[Ranges]) -> Iterator[str]:
    """Yield literals and classes for successive characters."""
    text = ""
    for ranges in steps:
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            text += chr(ranges[0][0])
            continue
        if text:
            yield literal(text)
            text = ""
        yield char_class(ranges)
    if text:
        yield literal(text)
