"""Hermes, Qwen 2.5 and 3, and many others: `<tool_call>`, a line break, a JSON object, `</tool_call>`.

Small ones now and then write the object alone, or in a fence: measured of Qwen 2.5 Coder 0.5B, nearly always.
"""

from collections.abc import Sequence

from frontend.parsing.tools.generic import FENCE, FENCE_END, bare_calls, json_calls
from frontend.parsing.tools.scanner import Source, Steps
from frontend.parsing.tools.tool_constraints import Function, call_schema, tagged
from frontend.parsing.tools.tool_format import Constraint, Family

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def _grammar(source: Source) -> Steps[None]:
    yield from bare_calls(source)
    while tag := (yield from source.prose(_OPEN, FENCE)):
        yield from json_calls(source)
        yield from source.skip_space()
        yield from source.at(_CLOSE if tag == _OPEN else FENCE_END)


def _constrain(functions: Sequence[Function], maximum: int | None) -> Constraint:
    return tagged(f"{_OPEN}\n", call_schema(functions), f"\n{_CLOSE}", "\n", maximum)


HERMES = Family(_grammar, _constrain, (_OPEN, _CLOSE))
