"""Phi-4-mini: `<|tool_call|>`, a JSON list, `<|/tool_call|>`, or `functools` and the list. Granite 3 writes alike."""

from collections.abc import Sequence

from frontend.parsing.tools.json_calls import read_calls
from frontend.parsing.tools.scanner import Source, Steps
from frontend.parsing.tools.tool_constraints import Function, calls_schema, tagged
from frontend.parsing.tools.tool_format import Constraint, Family

_OPEN, _CLOSE, _BARE = "<|tool_call|>", "<|/tool_call|>", "functools"


def _grammar(source: Source) -> Steps[None]:
    while (yield from source.prose(_OPEN, _BARE)):
        yield from source.skip_space()
        yield from read_calls(source)
        yield from source.skip_space()
        yield from source.at(_CLOSE)


def _constrain(functions: Sequence[Function], maximum: int | None) -> Constraint:
    return tagged(_OPEN, calls_schema(functions, maximum), _CLOSE, maximum=1)


PHI = Family(_grammar, _constrain, (_OPEN, _CLOSE))
