"""Models without a format of their own: JSON objects or a list of them, at the beginning or in a fence."""

from collections.abc import Sequence

from frontend.parsing.tools.json_calls import read_calls
from frontend.parsing.tools.scanner import Source, Steps
from frontend.parsing.tools.tool_constraints import Function, call_schema, calls_schema, tagged
from frontend.parsing.tools.tool_format import Constraint, Family

FENCE, FENCE_END = "```json", "```"


def _grammar(source: Source) -> Steps[None]:
    yield from bare_calls(source)
    while (yield from source.prose(FENCE)):
        yield from json_calls(source)
        yield from source.skip_space()
        yield from source.at(FENCE_END)


def bare_calls(source: Source) -> Steps[None]:
    """Read the calls that an answer begins with, if it does."""
    if source.untouched and (yield from source.coming()) in ("{", "["):
        yield from json_calls(source)


def json_calls(source: Source) -> Steps[None]:
    """Read one after the other, whatever white space is between."""
    while True:
        yield from source.skip_space()
        yield from read_calls(source)
        if (yield from source.coming()) not in ("{", "["):
            return


def _constrain(functions: Sequence[Function], maximum: int | None) -> Constraint:
    if maximum == 1:
        return tagged("", call_schema(functions), "", maximum=1)
    return tagged("", calls_schema(functions, maximum), "", maximum=1)


GENERIC = Family(_grammar, _constrain, ())
