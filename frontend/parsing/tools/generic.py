"""Tool calls of models without a native format.

The model writes a call as a JSON object, or several calls as a list of objects. The calls are at the start of the
output, or in a JSON code fence.
"""

from collections.abc import Sequence

from contract.constraints import ToolCallsConstraint
from frontend.parsing.tools.json_calls import FENCE, FENCE_END, bare_calls, json_calls
from frontend.parsing.tools.scanner import Scanner, Steps, ToolFormat
from frontend.parsing.tools.tool_constraints import Function, call_schema, calls_schema, tagged


def _grammar(scanner: Scanner) -> Steps[None]:
    yield from bare_calls(scanner)
    while (yield from scanner.text_until(FENCE)):
        yield from json_calls(scanner)
        yield from scanner.skip_space()
        yield from scanner.accept(FENCE_END)


def _constrain(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    if max_calls == 1:
        return tagged("", call_schema(functions), "", functions, max_calls=1)
    return tagged("", calls_schema(functions, max_calls), "", functions, max_calls=1)


GENERIC = ToolFormat(_grammar, _constrain, ())
