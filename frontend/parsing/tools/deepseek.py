"""DeepSeek's tool-call formats. Tags surround each call, and another pair of tags surrounds all calls.

For a call, V3 and R1 write the word `function`, a separator tag, the function's name, and the arguments in a JSON code
fence. V3.1 writes the function's name, the separator tag, and the arguments without a fence.
"""

from collections.abc import Sequence

from contract.constraints import ToolCallsConstraint
from contract.model_text import TOOL_TAGS
from frontend.parsing.tools.json_calls import FENCE, FENCE_END, read_arguments
from frontend.parsing.tools.scanner import Scanner, Steps, ToolFormat
from frontend.parsing.tools.tool_constraints import Function, tagged_any

_ALL, _ALL_END, _CALL, _CALL_END, _SEPARATOR = TOOL_TAGS["deepseek"]


def _grammar(scanner: Scanner) -> Steps[None]:
    while tag := (yield from scanner.text_until(_ALL, _CALL)):
        if tag == _ALL:
            yield from scanner.skip_space()
            yield from scanner.expect(_CALL)
        yield from _call(scanner)


def _call(scanner: Scanner) -> Steps[None]:
    name = yield from scanner.name()
    yield from scanner.expect(_SEPARATOR)
    if (yield from scanner.peek()) != "{":
        name = yield from scanner.name()
        yield from scanner.skip_space()
        yield from scanner.accept(FENCE)
    yield from scanner.skip_space()
    yield from read_arguments(scanner, name)
    for closing in (FENCE_END, _CALL_END, _ALL_END):
        yield from scanner.skip_space()
        yield from scanner.accept(closing)


def _constrain(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    begin = f"{_ALL}{_CALL}function{_SEPARATOR}"
    end = f"\n{FENCE_END}{_CALL_END}{_ALL_END}"
    return tagged_any([(f"{begin}{f['name']}\n{FENCE}\n", f, end) for f in functions])


def _constrain_bare(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    end = f"{_CALL_END}{_ALL_END}"
    return tagged_any([(f"{_ALL}{_CALL}{f['name']}{_SEPARATOR}", f, end) for f in functions])


DEEPSEEK = ToolFormat(_grammar, _constrain, TOOL_TAGS["deepseek"])
DEEPSEEK_BARE = ToolFormat(_grammar, _constrain_bare, TOOL_TAGS["deepseek-v3.1"])
