"""Tool calls of Phi-4-mini and Granite 3.

The calls are a JSON list, either between `<|tool_call|>` and `<|/tool_call|>` or after the word `functools`.
"""

from collections.abc import Sequence

from contract.constraints import ToolCallsConstraint
from contract.model_text import TOOL_TAGS
from frontend.parsing.tools.json_calls import read_calls
from frontend.parsing.tools.scanner import Scanner, Steps, ToolFormat
from frontend.parsing.tools.tool_constraints import Function, calls_schema, tagged

(_OPEN, _CLOSE), _BARE = TOOL_TAGS["phi"], "functools"


def _grammar(scanner: Scanner) -> Steps[None]:
    while (yield from scanner.text_until(_OPEN, _BARE)):
        yield from scanner.skip_space()
        yield from read_calls(scanner)
        yield from scanner.skip_space()
        yield from scanner.accept(_CLOSE)


def _constrain(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    return tagged(_OPEN, calls_schema(functions, max_calls), _CLOSE, functions, max_calls=1)


PHI = ToolFormat(_grammar, _constrain, TOOL_TAGS["phi"])
