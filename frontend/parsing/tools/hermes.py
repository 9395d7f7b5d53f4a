"""Tool calls of Hermes, Qwen 2.5 and 3, and many others: a JSON object between `<tool_call>` and `</tool_call>`.

Small models sometimes omit the tags, or write a JSON code fence instead of the tags; for example, Qwen 2.5 Coder 0.5B
hardly ever writes the tags. So calls without tags are accepted in a JSON code fence and at the start of the output.
"""

from collections.abc import Sequence

from contract.constraints import ToolCallsConstraint
from contract.model_text import TOOL_TAGS
from frontend.parsing.tools.json_calls import FENCE, FENCE_END, bare_calls, json_calls
from frontend.parsing.tools.scanner import Scanner, Steps, ToolFormat
from frontend.parsing.tools.tool_constraints import Function, call_schema, tagged

_OPEN, _CLOSE = TOOL_TAGS["hermes"]


def _grammar(scanner: Scanner) -> Steps[None]:
    yield from bare_calls(scanner)
    while tag := (yield from scanner.text_until(_OPEN, FENCE)):
        yield from json_calls(scanner)
        yield from scanner.skip_space()
        yield from scanner.accept(_CLOSE if tag == _OPEN else FENCE_END)


def _constrain(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    return tagged(f"{_OPEN}\n", call_schema(functions), f"\n{_CLOSE}", functions, "\n", max_calls)


HERMES = ToolFormat(_grammar, _constrain, TOOL_TAGS["hermes"])
