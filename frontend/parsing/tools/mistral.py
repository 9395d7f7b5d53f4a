"""Mistral: `[TOOL_CALLS]` and a JSON list; since version 11 of its tokenizer `[TOOL_CALLS]name[ARGS]{…}` a call."""

import secrets
import string
from collections.abc import Sequence

from frontend.parsing.tools.json_calls import read_arguments, read_calls
from frontend.parsing.tools.scanner import Scanner, Steps
from frontend.parsing.tools.tool_constraints import Function, calls_schema, parameters_of, tagged, tagged_any
from frontend.parsing.tools.tool_format import Constraint, ToolFormat

_TAG, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_ID_LENGTH = 9


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
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_ID_LENGTH))


def _constrain(functions: Sequence[Function], max_calls: int | None) -> Constraint:
    return tagged(_TAG, calls_schema(functions, max_calls), "", max_calls=1)


def _constrain_named(functions: Sequence[Function], max_calls: int | None) -> Constraint:
    return tagged_any([(f"{_TAG}{f['name']}{_ARGUMENTS}", parameters_of(f), "") for f in functions])


MISTRAL = ToolFormat(_grammar, _constrain, (_TAG, _ID, _ARGUMENTS), _new_id, _ID_LENGTH)
MISTRAL_NAMED = ToolFormat(_grammar, _constrain_named, (_TAG, _ID, _ARGUMENTS), _new_id, _ID_LENGTH)
