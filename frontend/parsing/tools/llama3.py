"""Tool calls of Llama 3.1 to 4: JSON objects with a name and `parameters`, separated by `;`.

Tool calls are at the start of the output or after `<|python_tag|>`.
"""

from collections.abc import Sequence

from contract.constraints import ToolCallsConstraint
from contract.model_text import TOOL_TAGS
from frontend.parsing.tools.json_calls import read_call
from frontend.parsing.tools.scanner import Scanner, Steps, ToolFormat
from frontend.parsing.tools.tool_constraints import Function, call_schema, tagged

(_TAG,) = TOOL_TAGS["llama3"]


def _grammar(scanner: Scanner) -> Steps[None]:
    if scanner.at_start and (yield from scanner.peek()) == "{":
        yield from _calls(scanner)
    while (yield from scanner.text_until(_TAG)):
        yield from _calls(scanner)


def _calls(scanner: Scanner) -> Steps[None]:
    while True:
        yield from scanner.skip_space()
        yield from read_call(scanner)
        yield from scanner.skip_space()
        if not (yield from scanner.accept(";")):
            return


def _constrain(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    return tagged("", call_schema(functions, "parameters"), "", functions, "; ", max_calls)


LLAMA3 = ToolFormat(_grammar, _constrain, TOOL_TAGS["llama3"])
