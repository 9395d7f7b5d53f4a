"""Models without a format of their own: JSON objects or a list of them, at the beginning or in a fence."""

from collections.abc import Sequence

from frontend.parsing.tools.json_calls import read_calls
from frontend.parsing.tools.scanner import Scanner, Steps
from frontend.parsing.tools.tool_constraints import Function, call_schema, calls_schema, tagged
from frontend.parsing.tools.tool_format import Constraint, ToolFormat

FENCE, FENCE_END = "```json", "```"


def _grammar(scanner: Scanner) -> Steps[None]:
    yield from bare_calls(scanner)
    while (yield from scanner.text_until(FENCE)):
        yield from json_calls(scanner)
        yield from scanner.skip_space()
        yield from scanner.accept(FENCE_END)


def bare_calls(scanner: Scanner) -> Steps[None]:
    """Read the calls that an answer begins with, if it does."""
    if scanner.untouched and (yield from scanner.peek()) in ("{", "["):
        yield from json_calls(scanner)


def json_calls(scanner: Scanner) -> Steps[None]:
    """Read one after the other, whatever white space is between."""
    while True:
        yield from scanner.skip_space()
        yield from read_calls(scanner)
        if (yield from scanner.peek()) not in ("{", "["):
            return


def _constrain(functions: Sequence[Function], max_calls: int | None) -> Constraint:
    if max_calls == 1:
        return tagged("", call_schema(functions), "", max_calls=1)
    return tagged("", calls_schema(functions, max_calls), "", max_calls=1)


GENERIC = ToolFormat(_grammar, _constrain, ())
