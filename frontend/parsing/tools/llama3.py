"""Llama 3.1 to 4: the answer is a JSON object with `parameters`, or several with `;` between, perhaps after a tag."""

from collections.abc import Sequence

from frontend.parsing.tools.json_calls import read_call
from frontend.parsing.tools.scanner import Source, Steps
from frontend.parsing.tools.tool_constraints import Function, call_schema, tagged
from frontend.parsing.tools.tool_format import Constraint, Family

_TAG = "<|python_tag|>"


def _grammar(source: Source) -> Steps[None]:
    if source.untouched and (yield from source.coming()) == "{":
        yield from _calls(source)
    while (yield from source.prose(_TAG)):
        yield from _calls(source)


def _calls(source: Source) -> Steps[None]:
    while True:
        yield from source.skip_space()
        yield from read_call(source)
        yield from source.skip_space()
        if not (yield from source.at(";")):
            return


def _constrain(functions: Sequence[Function], maximum: int | None) -> Constraint:
    return tagged("", call_schema(functions, "parameters"), "", "; ", maximum)


LLAMA3 = Family(_grammar, _constrain, (_TAG,))
