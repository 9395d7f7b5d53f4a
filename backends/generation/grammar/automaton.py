"""Finite automata over characters: from a regular expression's parts to the smallest deterministic automaton."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from backends.generation.grammar.ebnf import Ranges

# The rules of larger automata would exceed the limit of a grammar.
_MAX_STATES = 20_000
_MAX_NONDETERMINISTIC_STATES = 60_000
# The rules of larger intersections would take long to compile.
_MAX_COMMON_STATES = 4_000
# Larger automata with cycles are not minimized: the time grows with the square of the number of states.
_MAX_REFINED_STATES = 500

Transition = tuple[int, int, int]
"""The first and the last character (code points) that lead to a state, and that state."""


class TooManyStates(Exception):
    """The automaton exceeds its limit."""


class Nondeterministic:
    """An automaton in which a character may lead to several states, and some transitions need no character.

    States are numbers. The automaton accepts the texts that lead from state 0 to the state `end` of `deterministic`.
    """

    def __init__(self) -> None:
        self._transitions: list[list[Transition]] = [[]]
        self._free: list[list[int]] = [[]]
        self._count = 0

    def new_state(self) -> int:
        """Add a state and return it. Raises TooManyStates."""
        self._transitions.append([])
        self._free.append([])
        self._count += 1
        if self._count > _MAX_NONDETERMINISTIC_STATES:
            raise TooManyStates
        return self._count

    def connect(self, source: int, target: int, characters: Ranges | None = None) -> None:
        """Add a transition for each range of `characters`; None: a transition without a character."""
        if characters is None:
            self._free[source].append(target)
        else:
            self._transitions[source] += [(first, last, target) for first, last in characters]

    def deterministic(self, end: int) -> "Deterministic":
        """Return a deterministic automaton for the same texts (subset construction). Raises TooManyStates."""
        result = Deterministic()
        start = self._closure([0])
        numbers, waiting = {start: 0}, [start]
        while waiting:
            states = waiting.pop()
            source = numbers[states]
            if end in states:
                result.final.add(source)
            transitions = [transition for state in states for transition in self._transitions[state]]
            bounds = sorted({bound for first, last, _ in transitions for bound in (first, last + 1)})
            for first, after in pairwise(bounds):
                reached = self._closure(target for low, high, target in transitions if low <= first <= high)
                if not reached:
                    continue
                if reached not in numbers:
                    numbers[reached] = result.new_state()
                    waiting.append(reached)
                _append(result.transitions[source], first, after - 1, numbers[reached])
        return result

    def _closure(self, states: Iterable[int]) -> frozenset[int]:
        """Return the states, and all states that they lead to without a character."""
        waiting = list(states)
        found = set(waiting)
        while waiting:
            for target in self._free[waiting.pop()]:
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        return frozenset(found)


@dataclass
class Deterministic:
    """An automaton in which a character leads to at most one state. State 0 is the start."""

    transitions: list[list[Transition]] = field(default_factory=lambda: [[]])
    """By state, in ascending order of characters."""
    final: set[int] = field(default_factory=set)
    """The states in which a text may end."""

    def new_state(self) -> int:
        """Add a state and return it. Raises TooManyStates."""
        if len(self.transitions) > _MAX_STATES:
            raise TooManyStates
        self.transitions.append([])
        return len(self.transitions) - 1

    def intersection(self, other: "Deterministic") -> "Deterministic":
        """Return the automaton for the texts that both automata accept. Raises TooManyStates."""
        result = Deterministic()
        numbers, waiting = {(0, 0): 0}, [(0, 0)]
        while waiting:
            pair = waiting.pop()
            source = numbers[pair]
            if pair[0] in self.final and pair[1] in other.final:
                result.final.add(source)
            for first, last, target in _common(self.transitions[pair[0]], other.transitions[pair[1]]):
                if target not in numbers:
                    if len(numbers) >= _MAX_COMMON_STATES:
                        raise TooManyStates
                    numbers[target] = result.new_state()
                    waiting.append(target)
                _append(result.transitions[source], first, last, numbers[target])
        return result

    def minimal(self) -> "Deterministic":
        """Return the smallest automaton for the same texts, without states from which no text ends.

        A large automaton with cycles keeps its states.
        """
        useful = self._useful_states()
        transitions = [[each for each in of_state if each[2] in useful] for of_state in self.transitions]
        order = _targets_first(transitions)
        if order is None and len(transitions) > _MAX_REFINED_STATES:
            group = list(range(len(transitions)))
        elif order is None:
            group = self._refined_groups(transitions)
        else:
            group = [0] * len(transitions)
            signatures: dict[object, int] = {}
            for state in order:
                signature = state in self.final, tuple(_moves(transitions[state], group))
                group[state] = signatures.setdefault(signature, len(signatures))
        return self._merged(group, transitions)

    def _refined_groups(self, transitions: list[list[Transition]]) -> list[int]:
        """Return the group of each state; the states of a group accept the same rest of a text (Moore's algorithm)."""
        group = [int(state in self.final) for state in range(len(transitions))]
        while True:
            signatures: dict[object, int] = {}
            refined = [
                signatures.setdefault((group[state], tuple(_moves(each, group))), len(signatures))
                for state, each in enumerate(transitions)
            ]
            if len(signatures) == len(set(group)):
                return group
            group = refined

    def _useful_states(self) -> set[int]:
        """Return the states from which a final state can be reached."""
        sources: list[list[int]] = [[] for _ in self.transitions]
        for source, each in enumerate(self.transitions):
            for _, _, target in each:
                sources[target].append(source)
        useful, waiting = set(self.final), list(self.final)
        while waiting:
            for source in sources[waiting.pop()]:
                if source not in useful:
                    useful.add(source)
                    waiting.append(source)
        return useful

    def _merged(self, group: list[int], transitions: list[list[Transition]]) -> "Deterministic":
        """Return the automaton with one state per group, numbered in order of discovery."""
        members: dict[int, int] = {}
        for state, number in enumerate(group):
            members.setdefault(number, state)
        result = Deterministic()
        numbers, order = {group[0]: 0}, [group[0]]
        for number in order:
            for first, last, target in _moves(transitions[members[number]], group):
                if target not in numbers:
                    numbers[target] = result.new_state()
                    order.append(target)
                result.transitions[numbers[number]].append((first, last, numbers[target]))
        result.final = {numbers[group[state]] for state in self.final if group[state] in numbers}
        return result


def _common(ones: list[Transition], others: list[Transition]) -> list[tuple[int, int, tuple[int, int]]]:
    """Return the common characters of the transitions of two states, in ascending order, with both targets."""
    return sorted(
        (max(one[0], other[0]), min(one[1], other[1]), (one[2], other[2]))
        for one in ones
        for other in others
        if one[0] <= other[1] and other[0] <= one[1]
    )


def _append(transitions: list[Transition], first: int, last: int, target: int) -> None:
    """Add a transition after the others, joined with the last one if that leads to the same state."""
    if transitions and transitions[-1][2] == target and transitions[-1][1] == first - 1:
        first = transitions.pop()[0]
    transitions.append((first, last, target))


def _moves(transitions: list[Transition], group: list[int]) -> list[Transition]:
    """Return the transitions, in ascending order of characters, with groups as targets; adjacent ranges are joined."""
    moves: list[Transition] = []
    for first, last, target in transitions:
        _append(moves, first, last, group[target])
    return moves


def _targets_first(transitions: list[list[Transition]]) -> list[int] | None:
    """Return all states, each after the states that it leads to; None if there is a cycle."""
    unordered = [len({target for _, _, target in each}) for each in transitions]
    sources: list[set[int]] = [set() for _ in transitions]
    for source, each in enumerate(transitions):
        for _, _, target in each:
            sources[target].add(source)
    order = [state for state, count in enumerate(unordered) if not count]
    for state in order:
        for source in sources[state]:
            unordered[source] -= 1
            if not unordered[source]:
                order.append(source)
    return order if len(order) == len(transitions) else None
