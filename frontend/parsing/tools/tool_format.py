"""What is known of a family of models: how their calls are read, and how they can be made to call."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontend.parsing.events import Event
from frontend.parsing.tools.scanner import Malformed, Scanner, Steps

Constraint = dict[str, Any]
"""A text shape, for the engine: literal texts around one JSON value, see shapes.py."""


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True)
class ToolFormat:
    """The format of one family. Functions are named by the model that is asked for them."""

    grammar: Callable[[Scanner], Steps[None]]
    constrain: Callable[[Sequence[Mapping[str, Any]], int | None], Constraint]
    """From functions (name, parameters) and the most calls there may be to the shape of an answer that calls."""
    tags: tuple[str, ...]
    """What must not be left out of the text, although some tokenizers count it as special."""
    new_id: Callable[[], str] = _new_id
    id_length: int | None = None
    """The one length of ids that the family's templates take."""


class ToolParser:
    """Finds the calls in an answer that comes in pieces of any size. What is malformed is passed on as text."""

    def __init__(self, tool_format: ToolFormat, names: Collection[str], max_calls: int | None = None):
        self._tool_format = tool_format
        self._scanner = Scanner(names, max_calls, tool_format.new_id)
        self._steps = self._parse()

    def push(self, text: str) -> list[Event]:
        """Return what is sure now."""
        self._scanner.add(text)
        next(self._steps, None)
        return self._scanner.drain()

    def end(self) -> list[Event]:
        """Return what was kept back, when no more text will come."""
        self._scanner.over = True
        next(self._steps, None)
        self._scanner.finish()
        return self._scanner.drain()

    def _parse(self) -> Steps[None]:
        while True:
            try:
                yield from self._tool_format.grammar(self._scanner)
            except Malformed:
                self._scanner.fail_call()
            else:
                return
