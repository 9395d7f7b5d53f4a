"""Mistral's tool-call formats.

Before tokenizer v11, the format is `[TOOL_CALLS]` and a JSON list of calls. Since v11, each call is written as
`[TOOL_CALLS]name[ARGS]{…}`.
"""

import secrets
import string
from collections.abc import Sequence

from contract.constraints import ToolCallsConstraint
from contract.model_text import CALL_ID_LENGTH, TOOL_TAGS
from frontend.parsing.tools.json_calls import read_arguments, read_calls
from frontend.parsing.tools.scanner import Scanner, Steps, ToolFormat
from frontend.parsing.tools.tool_constraints import Function, calls_schema, tagged, tagged_any

_TAG, _ID, _ARGUMENTS = TOOL_TAGS["mistral"]


def _grammar(scanner: Scanner) -> Steps[None]:
    while (yield from scanner.text_until(_TAG)):
        yield from scanner.skip_space()
        if (yield from scanner.peek()) in ("[", "{"):
            yield from read_calls(scanner)
        else:
            yield from _named(scanner)


def _named(scanner: Scanner) -> Steps[None]:
    name = yield from scanner.name()
    if (yield from scanner.accept(_ID)):
        yield from scanner.name()
    yield from scanner.accept(_ARGUMENTS)
    yield from scanner.skip_space()
    yield from read_arguments(scanner, name)


def _new_id() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(CALL_ID_LENGTH["mistral"]))


def _constrain(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    return tagged(_TAG, calls_schema(functions, max_calls), "", functions, max_calls=1)


def _constrain_named(functions: Sequence[Function], max_calls: int | None) -> ToolCallsConstraint:
    return tagged_any([(f"{_TAG}{f['name']}{_ARGUMENTS}", f, "") for f in functions])


MISTRAL = ToolFormat(_grammar, _constrain, TOOL_TAGS["mistral"], _new_id)
MISTRAL_NAMED = ToolFormat(_grammar, _constrain_named, TOOL_TAGS["mistral-v11"], _new_id)
